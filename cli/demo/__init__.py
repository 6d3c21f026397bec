"""`trademesh demo`: a readable transcript of trading on the mesh, in which every step is checked."""

from cli.demo.run import run_demo

__all__ = ["run_demo"]
