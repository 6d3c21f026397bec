// Package trademesh is what a Go program needs beside the generated code: a connection with tokens, orders placed once, streams resumed.
package trademesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/oauth"
)

// Connect returns a connection to the edge of a mesh at host:port. It dials on the first call, and again whenever it is lost.
//
// authorityFile is a PEM file of the authority that signs the edge's certificate; the system's authorities where it is empty.
func Connect(endpoint, authorityFile string, tokens oauth2.TokenSource) (*grpc.ClientConn, error) {
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
		grpc.WithPerRPCCredentials(oauth.TokenSource{TokenSource: tokens}),
		// The service says which calls may be repeated, call by call; no configuration of the connection knows it.
		grpc.WithDisableServiceConfig(),
	)
}

// ClientCredentials returns tokens of a client at an OpenID Connect issuer (RFC 6749 §4.4), each used until shortly before its end.
func ClientCredentials(ctx context.Context, issuer, clientID, clientSecret string) (oauth2.TokenSource, error) {
	endpoint, err := tokenEndpoint(ctx, issuer)
	if err != nil {
		return nil, err
	}
	config := clientcredentials.Config{ClientID: clientID, ClientSecret: clientSecret, TokenURL: endpoint, AuthStyle: oauth2.AuthStyleInHeader}
	return config.TokenSource(context.WithoutCancel(ctx)), nil
}

// tokenEndpoint asks the issuer where its tokens are (OpenID Connect Discovery 1.0 §4).
func tokenEndpoint(ctx context.Context, issuer string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, issuer+"/.well-known/openid-configuration", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var found struct {
		Issuer        string `json:"issuer"`
		TokenEndpoint string `json:"token_endpoint"`
	}
	if err := json.NewDecoder(response.Body).Decode(&found); err != nil {
		return "", fmt.Errorf("the issuer %s: %w", issuer, err)
	}
	if response.StatusCode != http.StatusOK || found.Issuer != issuer || found.TokenEndpoint == "" {
		return "", fmt.Errorf("the issuer %s gave no token endpoint (%s)", issuer, response.Status)
	}
	return found.TokenEndpoint, nil
}
