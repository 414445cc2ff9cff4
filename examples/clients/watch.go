// Follows a table of `ktables serve` in a map, with Go's standard library alone.
//
//	go run watch.go http://127.0.0.1:7470 services billing
//
// Prints the map as JSON once it has the key `billing`.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"
)

// The server sends a bookmark every ten seconds. A connection that is silent for longer is broken.
const timeout = 30 * time.Second

const longestPause = 5 * time.Second

// An event of a watch.
type event struct {
	Type  string          `json:"type"`
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
	ID    string          `json:"id"`
}

// Table has the entries of a table.
type Table struct {
	address string
	entries map[string]json.RawMessage
	lastID  string
	// The keys of a listing that has begun; nil while there is none.
	listed map[string]bool
	// Called after each event that was applied.
	onEvent func()
}

// Follow follows the table for ever. It connects again when a connection ends, and continues where it was.
func (table *Table) Follow() {
	pause := 100 * time.Millisecond
	for {
		events, err := table.read()
		if events > 0 {
			pause = 100 * time.Millisecond
		}
		fmt.Fprintln(os.Stderr, "connecting again:", err)
		time.Sleep(pause)
		pause = min(2*pause, longestPause)
	}
}

// Reads a connection until it ends. Returns the number of its events.
func (table *Table) read() (int, error) {
	parameters := url.Values{"old": {"false"}}
	if table.lastID != "" {
		parameters.Set("since", table.lastID)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	silence := time.AfterFunc(timeout, cancel)
	defer silence.Stop()
	request, err := http.NewRequestWithContext(ctx, "GET", table.address+"?"+parameters.Encode(), nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the server answered %s", response.Status)
	}
	lines := bufio.NewReader(response.Body)
	for count := 0; ; count++ {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return count, err
		}
		silence.Reset(timeout)
		var event event
		if err := json.Unmarshal(line, &event); err != nil {
			return count, err
		}
		table.apply(event)
	}
}

func (table *Table) apply(event event) {
	if event.Type == "restarted" || event.Type == "entry" && table.listed == nil {
		// All entries follow. What is not among them does not exist any more.
		table.listed = map[string]bool{}
	}
	switch event.Type {
	case "entry", "put":
		table.entries[event.Key] = event.Value
		if table.listed != nil {
			table.listed[event.Key] = true
		}
	case "delete":
		delete(table.entries, event.Key)
	case "synced":
		for key := range table.entries {
			if table.listed != nil && !table.listed[key] {
				delete(table.entries, key)
			}
		}
		table.listed = nil
	}
	if event.ID != "" {
		table.lastID = event.ID
	}
	table.onEvent()
}

func main() {
	address := os.Args[1] + "/v1/tables/" + url.PathEscape(os.Args[2]) + "/watch"
	table := &Table{address: address, entries: map[string]json.RawMessage{}}
	table.onEvent = func() {
		if _, has := table.entries[os.Args[3]]; has {
			json.NewEncoder(os.Stdout).Encode(table.entries)
			os.Exit(0)
		}
	}
	table.Follow()
}
