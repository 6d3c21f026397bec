"""The page of the REST reference as a browser shows it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.e2e.edge.client import Client

pytestmark = pytest.mark.e2e

BROWSER = shutil.which("chromium")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors", "--hide-scrollbars", "--window-size=1280,1600")


@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
async def test_the_reference_is_shown(client: Client, tmp_path: Path) -> None:
    assert BROWSER is not None
    picture = tmp_path / "docs.png"
    flags = (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}")
    for wanted in ((f"--screenshot={picture}",), ("--dump-dom",)):
        process = await asyncio.create_subprocess_exec(
            BROWSER, *flags, *wanted, f"{client.url}/docs", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(60):
            shown, complaint = await process.communicate()
        assert process.returncode == 0, complaint[-2000:]
    assert picture.stat().st_size > 10_000
    for text in (b"Trademesh", b"/v1/accounts/{account_id}/orders", b"CreateReport"):
        assert text in shown
