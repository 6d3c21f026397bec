package trademesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	tokenMargin   = 30 * time.Second
	issuerTimeout = 10 * time.Second
)

// Tokens are access tokens for calls (credentials.PerRPCCredentials), each used until shortly before its end. Safe for concurrent use.
type Tokens struct {
	fetch   func(context.Context) (*oauth2.Token, error)
	timeout time.Duration
	mutex   sync.Mutex
	latest  *tokenRequest
}

// tokenRequest is one request for a token, answered or under way; its fields count once done is closed.
type tokenRequest struct {
	done    chan struct{}
	token   *oauth2.Token
	renewAt time.Time
	err     error
}

// ClientCredentials returns tokens of a client at an OpenID Connect issuer (RFC 6749 §4.4), whose endpoint is discovered with the first one.
func ClientCredentials(issuer, clientID, clientSecret string) *Tokens {
	var endpoint string
	return &Tokens{timeout: issuerTimeout, fetch: func(ctx context.Context) (*oauth2.Token, error) {
		if endpoint == "" {
			found, err := tokenEndpoint(ctx, issuer)
			if err != nil {
				return nil, err
			}
			endpoint = found
		}
		config := clientcredentials.Config{
			ClientID: clientID, ClientSecret: clientSecret, TokenURL: endpoint, AuthStyle: oauth2.AuthStyleInHeader,
		}
		return config.Token(ctx)
	}}
}

// FixedToken returns one token that somebody else renews.
func FixedToken(token string) *Tokens {
	done := make(chan struct{})
	close(done)
	kept := &tokenRequest{done: done, token: &oauth2.Token{AccessToken: token}, renewAt: time.Unix(math.MaxInt32, 0)}
	return &Tokens{latest: kept}
}

// GetRequestMetadata returns a call's authorization. It waits for a token no longer than the call's own deadline.
//
// An issuer that cannot be reached is Unavailable, since it may come back; Unauthenticated is one that refuses the client.
func (t *Tokens) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	asked := t.ask()
	select {
	case <-asked.done:
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if asked.err != nil {
		return nil, issuerError(asked.err)
	}
	return map[string]string{"authorization": "Bearer " + asked.token.AccessToken}, nil
}

// RequireTransportSecurity keeps tokens off connections without TLS.
func (t *Tokens) RequireTransportSecurity() bool {
	return true
}

// ask returns the request that callers at the same time share; its time is its own, not that of the caller who happened to come first.
func (t *Tokens) ask() *tokenRequest {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.latest == nil || t.latest.over(time.Now()) {
		made := &tokenRequest{done: make(chan struct{})}
		t.latest = made
		go func() {
			defer close(made.done)
			ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
			defer cancel()
			began := time.Now()
			made.token, made.err = t.fetch(ctx)
			if made.err == nil {
				life := made.token.Expiry.Sub(began)
				made.renewAt = began.Add(max(life-tokenMargin, life/2))
			}
		}()
	}
	return t.latest
}

func (r *tokenRequest) over(now time.Time) bool {
	select {
	case <-r.done:
		return r.err != nil || !now.Before(r.renewAt)
	default:
		return false
	}
}

func issuerError(err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		switch refused.Response.StatusCode {
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
			return status.Errorf(codes.Unauthenticated, "the issuer gave no token: %v", err)
		}
	}
	return status.Errorf(codes.Unavailable, "the issuer cannot be reached: %v", err)
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
