package trademesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const patience = 10 * time.Second

// issuerOf serves discovery, and a token endpoint that is given.
func issuerOf(t *testing.T, token http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("/.well-known/openid-configuration", func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(answer, `{"issuer": %q, "token_endpoint": %q}`, server.URL, server.URL+"/token")
	})
	mux.HandleFunc("/token", token)
	return server.URL
}

func answered(code int, body string) http.HandlerFunc {
	return func(answer http.ResponseWriter, _ *http.Request) {
		answer.Header().Set("Content-Type", "application/json")
		answer.WriteHeader(code)
		fmt.Fprint(answer, body)
	}
}

func TestAnIssuerThatIsAwayIsUnavailableAndOneThatRefusesIsNot(t *testing.T) {
	for _, row := range []struct {
		token http.HandlerFunc
		code  codes.Code
	}{
		{answered(http.StatusOK, `{"access_token": "t", "token_type": "Bearer", "expires_in": 300}`), codes.OK},
		{answered(http.StatusUnauthorized, `{"error": "invalid_client"}`), codes.Unauthenticated},
		{answered(http.StatusBadRequest, `{"error": "invalid_scope"}`), codes.Unauthenticated},
		{answered(http.StatusTooManyRequests, `{"error": "slow_down"}`), codes.Unavailable},
		{answered(http.StatusServiceUnavailable, "out of order"), codes.Unavailable},
		{answered(http.StatusOK, "no JSON"), codes.Unavailable},
		{func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, codes.Unavailable},
	} {
		_, err := ClientCredentials(issuerOf(t, row.token), "id", "secret").GetRequestMetadata(context.Background())
		if status.Code(err) != row.code {
			t.Errorf("%v, not %s", err, row.code)
		}
	}
	_, err := ClientCredentials("http://127.0.0.1:1", "id", "secret").GetRequestMetadata(context.Background())
	if status.Code(err) != codes.Unavailable {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestACallWaitsForATokenNoLongerThanItsDeadline(t *testing.T) {
	ended := make(chan struct{})
	issuer := issuerOf(t, func(_ http.ResponseWriter, request *http.Request) {
		io.Copy(io.Discard, request.Body)
		select {
		case <-request.Context().Done():
			close(ended)
		case <-time.After(patience):
		}
	})
	tokens := ClientCredentials(issuer, "id", "secret")
	tokens.timeout = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := tokens.GetRequestMetadata(ctx); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the call's own deadline: %v", err)
	}
	if _, err := tokens.GetRequestMetadata(context.Background()); status.Code(err) != codes.Unavailable {
		t.Errorf("the request's: %v", err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the request for a token goes on")
	}
}

func TestCallersShareOneRequestAndAFailedOneIsRepeated(t *testing.T) {
	answers := make(chan error)
	tokens := &Tokens{timeout: patience, fetch: func(context.Context) (*oauth2.Token, error) {
		return &oauth2.Token{AccessToken: "t", Expiry: time.Now().Add(time.Hour)}, <-answers
	}}
	failing := tokens.ask()
	if tokens.ask() != failing {
		t.Error("a request is under way, and another one was made")
	}
	answers <- errors.New("away")
	<-failing.done
	asked := tokens.ask()
	if asked == failing {
		t.Error("a request has failed, and no other one was made")
	}
	answers <- nil
	<-asked.done
	if tokens.ask() != asked {
		t.Error("the token is good, and another one was asked for")
	}
	headers, err := tokens.GetRequestMetadata(context.Background())
	if err != nil || headers["authorization"] != "Bearer t" {
		t.Errorf("%v %v", headers, err)
	}
}

func TestATokenIsRenewedBeforeItsEnd(t *testing.T) {
	for life, used := range map[time.Duration]time.Duration{
		5 * time.Minute: 5*time.Minute - tokenMargin, 40 * time.Second: 20 * time.Second, 0: 0,
	} {
		tokens := &Tokens{timeout: patience, fetch: func(context.Context) (*oauth2.Token, error) {
			return &oauth2.Token{AccessToken: "t", Expiry: time.Now().Add(life)}, nil
		}}
		began := time.Now()
		asked := tokens.ask()
		<-asked.done
		if early := asked.renewAt.Sub(began) - used; early < -time.Second || early > time.Since(began)+time.Second {
			t.Errorf("a token of %s is used for %s", life, asked.renewAt.Sub(began))
		}
	}
}
