package main

import (
	"fmt"
	"io"
	"net"
	"os"

	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/test"
)

// redirect serves what Istio makes of manifests for workloads whose sockets are redirected to their proxies. The first line that it
// prints is its address on loopback.
func redirect(meshFile, manifests string) error {
	meshText, err := os.ReadFile(meshFile)
	if err != nil {
		return err
	}
	meshConfig, err := mesh.ApplyMeshConfigDefaults(string(meshText))
	if err != nil {
		return err
	}
	objects, err := os.ReadFile(manifests)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return test.Wrap(func(t test.Failer) {
		xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
			ConfigString:    string(objects),
			MeshConfig:      meshConfig,
			ListenerBuilder: func() (net.Listener, error) { return listener, nil },
		})
		fmt.Println(listener.Addr())
		_, _ = io.Copy(io.Discard, os.Stdin)
	})
}
