// Command conformance runs the scenario table and prints what it saw, one JSON line per scenario. It judges nothing: the driver does.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"

	"trademesh/clients/trademesh"
)

const scenarioTimeout = 60 * time.Second

type user struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	Token        string `json:"token"`
	Issuer       string `json:"issuer"`
}

type scenario struct {
	Name  string `json:"name"`
	Steps []step `json:"steps"`
}

// task is the runner's input: where the mesh is, who calls, and what to do.
type task struct {
	Doors         map[string]string `json:"doors"`
	AuthorityFile string            `json:"authority_file"`
	Users         map[string]user   `json:"users"`
	Scenarios     []scenario        `json:"scenarios"`
}

type report struct {
	Scenario string           `json:"scenario"`
	Seconds  float64          `json:"seconds"`
	Steps    []map[string]any `json:"steps"`
	Error    string           `json:"error,omitempty"`
}

type runner struct {
	task
	connections map[string]*grpc.ClientConn
	tokens      map[string]*trademesh.Tokens
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	r := &runner{connections: map[string]*grpc.ClientConn{}, tokens: map[string]*trademesh.Tokens{}}
	if err := json.Unmarshal(text, &r.task); err != nil {
		return err
	}
	lines := json.NewEncoder(os.Stdout)
	for _, scenario := range r.Scenarios {
		if err := lines.Encode(r.play(scenario)); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) play(scenario scenario) report {
	ctx, cancel := context.WithTimeout(context.Background(), scenarioTimeout)
	defer cancel()
	began := time.Now()
	s := &stage{runner: r, saved: map[string]any{}, streams: map[string]*trademesh.Subscription{}}
	defer s.close()
	done := report{Scenario: scenario.Name, Steps: []map[string]any{}}
	for number, step := range scenario.Steps {
		seen, err := s.perform(ctx, step)
		if err != nil {
			done.Error = fmt.Sprintf("step %d (%s): %v", number+1, step.Verb, err)
			break
		}
		done.Steps = append(done.Steps, seen)
	}
	done.Seconds = time.Since(began).Seconds()
	return done
}

// connection returns the connection of a user through a door, made when first needed.
func (r *runner) connection(name, door string) (*grpc.ClientConn, error) {
	key := name + " " + door
	if known := r.connections[key]; known != nil {
		return known, nil
	}
	tokens, err := r.tokensOf(name)
	if err != nil {
		return nil, err
	}
	made, err := trademesh.Connect(r.Doors[door], r.AuthorityFile, tokens)
	r.connections[key] = made
	return made, err
}

func (r *runner) tokensOf(name string) (*trademesh.Tokens, error) {
	if known := r.tokens[name]; known != nil {
		return known, nil
	}
	who, present := r.Users[name]
	if !present {
		return nil, fmt.Errorf("no user %q", name)
	}
	if who.Token != "" {
		r.tokens[name] = trademesh.FixedToken(who.Token)
	} else {
		r.tokens[name] = trademesh.ClientCredentials(who.Issuer, who.ClientID, who.ClientSecret)
	}
	return r.tokens[name], nil
}
