package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
)

const tlsPrefix = "tls:"

func isTLS(target string) bool {
	return strings.HasPrefix(target, tlsPrefix)
}

// dial connects to a UNIX socket, or to tls:host:port speaking the given application protocol (RFC 7301).
func dial(s *settings, target, protocol string) (net.Conn, error) {
	if !isTLS(target) {
		return net.Dial("unix", target)
	}
	config := &tls.Config{RootCAs: s.authorities, NextProtos: []string{protocol}, MinVersion: tls.VersionTLS12}
	connection, err := tls.Dial("tcp", strings.TrimPrefix(target, tlsPrefix), config)
	if err != nil {
		return nil, err
	}
	if agreed := connection.ConnectionState().NegotiatedProtocol; agreed != protocol {
		return nil, fmt.Errorf("the server speaks %q, not %s", agreed, protocol)
	}
	return connection, nil
}
