// Package trademesh is what a Go program needs beside the generated code: a connection with tokens, orders placed once, streams resumed.
package trademesh

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Connect returns a connection to the edge of a mesh at host:port. It dials on the first call, and again whenever it is lost.
//
// authorityFile is a PEM file of the authority that signs the edge's certificate; the system's authorities where it is empty.
func Connect(endpoint, authorityFile string, tokens credentials.PerRPCCredentials) (*grpc.ClientConn, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if authorityFile != "" {
		text, err := os.ReadFile(authorityFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate", authorityFile)
		}
	}
	return grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithPerRPCCredentials(tokens),
		// The service says which calls may be repeated, call by call; no configuration of the connection knows it.
		grpc.WithDisableServiceConfig(),
	)
}
