// Command clients drives a server with etcd's own Go client, as a program of a user would: what works for it today
// has to work here. It prints one line a check, and ends with 1 at the first that fails. After the line "restart the
// server" it waits for a line of input that says that this was done.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Println("FAIL", err)
		os.Exit(1)
	}
}

func run(endpoint string) error {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	checks := []struct {
		name  string
		check func(context.Context, *clientv3.Client) error
	}{
		{"put and get", putAndGet},
		{"ranges", ranges},
		{"transactions", transactions},
		{"a namespace", inNamespace},
		{"deletes", deletes},
		{"errors are the client's own values", refusals},
		{"members and status", members},
		{"compressed requests", compressed},
		{"leases and watches", leases},
		{"mutexes", mutexes},
		{"elections", elections},
		{"software transactions", softwareTransactions},
		{"queues and barriers", queues},
		{"a restart of the server under the client", restart},
	}
	for _, c := range checks {
		if err := c.check(ctx, client); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Println("ok", c.name)
	}
	return nil
}

func putAndGet(ctx context.Context, c *clientv3.Client) error {
	first, err := c.Put(ctx, "name", "john")
	if err != nil {
		return err
	}
	second, err := c.Put(ctx, "name", "jane", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	if string(second.PrevKv.Value) != "john" || second.Header.Revision != first.Header.Revision+1 {
		return fmt.Errorf("answer %v after %v", second, first)
	}
	old, err := c.Get(ctx, "name", clientv3.WithRev(first.Header.Revision))
	if err != nil {
		return err
	}
	if len(old.Kvs) != 1 || string(old.Kvs[0].Value) != "john" {
		return fmt.Errorf("the past reads %v", old.Kvs)
	}
	local, err := c.Get(ctx, "name", clientv3.WithSerializable())
	if err != nil {
		return err
	}
	if string(local.Kvs[0].Value) != "jane" || local.Kvs[0].Version != 2 {
		return fmt.Errorf("a serializable read gives %v", local.Kvs)
	}
	return nil
}

func ranges(ctx context.Context, c *clientv3.Client) error {
	for i := range 20 {
		if _, err := c.Put(ctx, fmt.Sprintf("/r/%02d", i), fmt.Sprint(20-i)); err != nil {
			return err
		}
	}
	page, err := c.Get(ctx, "/r/", clientv3.WithPrefix(), clientv3.WithLimit(7), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	if len(page.Kvs) != 7 || !page.More || page.Count != 20 || len(page.Kvs[0].Value) != 0 {
		return fmt.Errorf("page of %d, more %v, count %d", len(page.Kvs), page.More, page.Count)
	}
	last, err := c.Get(ctx, "/r/", clientv3.WithLastCreate()...)
	if err != nil {
		return err
	}
	if string(last.Kvs[0].Key) != "/r/19" {
		return fmt.Errorf("the last one created is %q", last.Kvs[0].Key)
	}
	return nil
}

func transactions(ctx context.Context, c *clientv3.Client) error {
	taken := clientv3.Compare(clientv3.CreateRevision("lock"), "=", 0)
	for _, want := range []bool{true, false} {
		answer, err := c.Txn(ctx).If(taken).Then(clientv3.OpPut("lock", "me")).Else(clientv3.OpGet("lock")).Commit()
		if err != nil {
			return err
		}
		if answer.Succeeded != want {
			return fmt.Errorf("succeeded %v, want %v", answer.Succeeded, want)
		}
		if !want && string(answer.Responses[0].GetResponseRange().Kvs[0].Value) != "me" {
			return fmt.Errorf("else reads %v", answer.Responses)
		}
	}
	return nil
}

func inNamespace(ctx context.Context, c *clientv3.Client) error {
	inner := namespace.NewKV(c.KV, "tenant/")
	if _, err := inner.Put(ctx, "k", "v"); err != nil {
		return err
	}
	outer, err := c.Get(ctx, "tenant/k")
	if err != nil {
		return err
	}
	if outer.Count != 1 {
		return fmt.Errorf("count %d", outer.Count)
	}
	return nil
}

func deletes(ctx context.Context, c *clientv3.Client) error {
	answer, err := c.Delete(ctx, "/r/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	if answer.Deleted != 20 || len(answer.PrevKvs) != 20 {
		return fmt.Errorf("deleted %d, %d pairs", answer.Deleted, len(answer.PrevKvs))
	}
	return nil
}

func refusals(ctx context.Context, c *clientv3.Client) error {
	if _, err := c.Put(ctx, "", "v"); !errors.Is(err, rpctypes.ErrEmptyKey) {
		return fmt.Errorf("no key: %v", err)
	}
	if _, err := c.Get(ctx, "k", clientv3.WithRev(1<<40)); !errors.Is(err, rpctypes.ErrFutureRev) {
		return fmt.Errorf("a revision to come: %v", err)
	}
	return nil
}

func members(ctx context.Context, c *clientv3.Client) error {
	list, err := c.MemberList(ctx)
	if err != nil {
		return err
	}
	status, err := c.Status(ctx, c.Endpoints()[0])
	if err != nil {
		return err
	}
	if len(list.Members) != 1 || status.Leader != list.Members[0].ID || status.Version != "3.7.1" {
		return fmt.Errorf("members %v, status %v", list.Members, status)
	}
	return nil
}

// A client may compress what it sends; etcd's server takes it, though it never says so.
func compressed(ctx context.Context, c *clientv3.Client) error {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   c.Endpoints(),
		DialTimeout: 5 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name))},
	})
	if err != nil {
		return err
	}
	defer client.Close()
	value := strings.Repeat("long and dull ", 50000)
	if _, err := client.Put(ctx, "compressed", value); err != nil {
		return err
	}
	answer, err := client.Get(ctx, "compressed")
	if err != nil {
		return err
	}
	if len(answer.Kvs) != 1 || string(answer.Kvs[0].Value) != value {
		return fmt.Errorf("it reads %d pairs, or another value", len(answer.Kvs))
	}
	if _, err := client.Put(ctx, "", "v"); !errors.Is(err, rpctypes.ErrEmptyKey) {
		return fmt.Errorf("no key: %v", err)
	}
	_, err = client.MemberList(ctx)
	return err
}

// The connection breaks, and the client goes on by itself: nothing that it was told is gone, and what it sends
// next succeeds.
func restart(ctx context.Context, c *clientv3.Client) error {
	before, err := c.Put(ctx, "kept", "v")
	if err != nil {
		return err
	}
	fmt.Println("restart the server")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	read, err := c.Get(ctx, "kept")
	if err != nil {
		return err
	}
	if len(read.Kvs) != 1 || read.Kvs[0].ModRevision != before.Header.Revision {
		return fmt.Errorf("after the restart it reads %v", read.Kvs)
	}
	if read.Header.RaftTerm <= before.Header.RaftTerm || read.Header.MemberId != before.Header.MemberId {
		return fmt.Errorf("header %v after %v", read.Header, before.Header)
	}
	after, err := c.Put(ctx, "kept", "w")
	if err != nil {
		return err
	}
	if after.Header.Revision != before.Header.Revision+1 {
		return fmt.Errorf("revision %d after %d", after.Header.Revision, before.Header.Revision)
	}
	return nil
}
