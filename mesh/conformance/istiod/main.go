// Command oracle asks Istio's own code, as a library, about manifests:
//
//	oracle analyze MESH MANIFESTS...   prints what Istio's analyzers say, as JSON
//	oracle redirect MESH MANIFESTS     serves xDS as Istio's own tests do, until its input ends
//	oracle kustomize DIRECTORY         prints the objects of a kustomization, with kustomize's own library
//
// MESH is a file of MeshConfig, MANIFESTS are files of Istio's objects.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) > 2 && arguments[0] == "analyze":
		return analyze(arguments[1], arguments[2:])
	case len(arguments) == 3 && arguments[0] == "redirect":
		return redirect(arguments[1], arguments[2])
	case len(arguments) == 2 && arguments[0] == "kustomize":
		return kustomize(arguments[1])
	}
	return fmt.Errorf("usage: oracle analyze MESH MANIFESTS... | oracle redirect MESH MANIFESTS | oracle kustomize DIRECTORY")
}
