// Reads one value again and again from a server: ktables, etcd or NATS. Prints reads per second and percentiles of their times.
//
//	kv KIND ADDRESS SECONDS CONNECTIONS
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The value has 200 bytes, and is JSON.
var value = "\"" + strings.Repeat("v", 198) + "\""

// A reader reads the value once.
type reader func() ([]byte, error)

func main() {
	if len(os.Args) != 5 {
		fail(fmt.Errorf("usage: kv ktables|etcd|nats ADDRESS SECONDS CONNECTIONS"))
	}
	kind, address := os.Args[1], os.Args[2]
	seconds, err := strconv.Atoi(os.Args[3])
	fail(err)
	connections, err := strconv.Atoi(os.Args[4])
	fail(err)
	open := map[string]func(string) (reader, error){"ktables": openKtables, "etcd": openEtcd, "nats": openNats}[kind]
	readers := make([]reader, connections)
	for i := range readers {
		readers[i], err = open(address)
		fail(err)
		got, err := readers[i]()
		fail(err)
		if string(got) != value {
			fail(fmt.Errorf("%s has another value: %q", kind, got))
		}
	}
	times := make([][]time.Duration, connections)
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	var group sync.WaitGroup
	for i, read := range readers {
		group.Add(1)
		go func() {
			defer group.Done()
			for now := time.Now(); now.Before(end); {
				_, err := read()
				fail(err)
				next := time.Now()
				times[i] = append(times[i], next.Sub(now))
				now = next
			}
		}()
	}
	group.Wait()
	var all []time.Duration
	for _, some := range times {
		all = append(all, some...)
	}
	sort.Slice(all, func(a, b int) bool { return all[a] < all[b] })
	at := func(part float64) float64 { return float64(all[int(float64(len(all))*part)].Microseconds()) / 1000 }
	fmt.Printf("%d %.3f %.3f\n", len(all)/seconds, at(0.5), at(0.99))
}

func openKtables(address string) (reader, error) {
	url := address + "/v1/tables/services/entry?key=billing"
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	request, err := http.NewRequest(http.MethodPut, url+"&visible=true", strings.NewReader(value))
	if err != nil {
		return nil, err
	}
	if err := discard(client.Do(request)); err != nil {
		return nil, err
	}
	return func() ([]byte, error) {
		answer, err := client.Get(url)
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close()
		return io.ReadAll(answer.Body)
	}, nil
}

func discard(answer *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answered %s", answer.Status)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

func openEtcd(address string) (reader, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	if _, err := client.Put(context.Background(), "billing", value); err != nil {
		return nil, err
	}
	return func() ([]byte, error) {
		answer, err := client.Get(context.Background(), "billing")
		if err != nil || len(answer.Kvs) != 1 {
			return nil, err
		}
		return answer.Kvs[0].Value, nil
	}, nil
}

func openNats(address string) (reader, error) {
	connection, err := nats.Connect(address)
	if err != nil {
		return nil, err
	}
	stream, err := connection.JetStream()
	if err != nil {
		return nil, err
	}
	bucket, err := stream.CreateKeyValue(&nats.KeyValueConfig{Bucket: "services"})
	if err != nil {
		return nil, err
	}
	if _, err := bucket.Put("billing", []byte(value)); err != nil {
		return nil, err
	}
	return func() ([]byte, error) {
		entry, err := bucket.Get("billing")
		if err != nil {
			return nil, err
		}
		return entry.Value(), nil
	}, nil
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
