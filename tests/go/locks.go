package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

// Watches and leases are what all of this stands on: a lease lives while it is kept alive, and a watch sees it end.
func leases(ctx context.Context, c *clientv3.Client) error {
	granted, err := c.Grant(ctx, 2)
	if err != nil {
		return err
	}
	if _, err := c.Put(ctx, "leased", "v", clientv3.WithLease(granted.ID)); err != nil {
		return err
	}
	watched := c.Watch(ctx, "leased", clientv3.WithFilterPut())
	keeping, stop := context.WithCancel(ctx)
	defer stop()
	kept, err := c.KeepAlive(keeping, granted.ID)
	if err != nil {
		return err
	}
	for range 5 {
		if renewed, open := <-kept; !open || renewed.TTL != 2 {
			return fmt.Errorf("renewed: %v, open %v", renewed, open)
		}
	}
	if read, err := c.Get(ctx, "leased"); err != nil || len(read.Kvs) != 1 {
		return fmt.Errorf("it reads %v, %w", read, err)
	}
	stop()
	select {
	case answer := <-watched:
		if len(answer.Events) != 1 || answer.Events[0].Type != clientv3.EventTypeDelete {
			return fmt.Errorf("watched: %v", answer)
		}
	case <-ctx.Done():
		return errors.New("the lease does not end")
	}
	_, err = c.KeepAliveOnce(ctx, granted.ID)
	if err == nil {
		return errors.New("a lease that is over is renewed")
	}
	return nil
}

// Many take turns at what only one may do at a time.
func mutexes(ctx context.Context, c *clientv3.Client) error {
	const takers, turns = 8, 5
	inside, done := 0, 0
	taken := func() error {
		session, err := concurrency.NewSession(c, concurrency.WithTTL(10))
		if err != nil {
			return err
		}
		defer session.Close()
		mutex := concurrency.NewMutex(session, "mutex")
		for range turns {
			if err := mutex.Lock(ctx); err != nil {
				return err
			}
			// Only the mutex keeps these apart.
			inside++
			if inside != 1 {
				return fmt.Errorf("%d are inside", inside)
			}
			time.Sleep(time.Millisecond)
			inside--
			done++
			if err := mutex.Unlock(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	if err := together(takers, taken); err != nil {
		return err
	}
	if done != takers*turns {
		return fmt.Errorf("%d turns", done)
	}
	session, err := concurrency.NewSession(c)
	if err != nil {
		return err
	}
	defer session.Close()
	other, err := concurrency.NewSession(c)
	if err != nil {
		return err
	}
	defer other.Close()
	held, wanted := concurrency.NewMutex(session, "mutex"), concurrency.NewMutex(other, "mutex")
	if err := held.Lock(ctx); err != nil {
		return err
	}
	if err := wanted.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		return fmt.Errorf("a try: %v", err)
	}
	return held.Unlock(ctx)
}

func elections(ctx context.Context, c *clientv3.Client) error {
	sessions := make([]*concurrency.Session, 2)
	for i := range sessions {
		session, err := concurrency.NewSession(c)
		if err != nil {
			return err
		}
		defer session.Close()
		sessions[i] = session
	}
	first, second := concurrency.NewElection(sessions[0], "election"), concurrency.NewElection(sessions[1], "election")
	if err := first.Campaign(ctx, "a"); err != nil {
		return err
	}
	observed := second.Observe(ctx)
	elected := make(chan error, 1)
	go func() { elected <- second.Campaign(ctx, "c") }()
	for _, want := range []string{"a", "b", "c"} {
		answer, open := <-observed
		if !open || string(answer.Kvs[0].Value) != want {
			return fmt.Errorf("observed: %v, not %q", answer, want)
		}
		var err error
		switch want {
		case "a":
			err = first.Proclaim(ctx, "b")
		case "b":
			err = first.Resign(ctx)
		case "c":
			err = <-elected
		}
		if err != nil {
			return err
		}
	}
	if err := first.Proclaim(ctx, "d"); !errors.Is(err, concurrency.ErrElectionNotLeader) {
		return fmt.Errorf("a proclamation after the end: %v", err)
	}
	return second.Resign(ctx)
}

// Transactions that read and write what others do at the same time, again until nothing has come between.
func softwareTransactions(ctx context.Context, c *clientv3.Client) error {
	const accounts, movers, moves, each = 4, 6, 15, 100
	account := func(n int) string { return fmt.Sprintf("account/%d", n%accounts) }
	for n := range accounts {
		if _, err := c.Put(ctx, account(n), strconv.Itoa(each)); err != nil {
			return err
		}
	}
	var next sync.Mutex
	moved := 0
	move := func() error {
		for range moves {
			next.Lock()
			n := moved
			moved++
			next.Unlock()
			_, err := concurrency.NewSTM(c, func(stm concurrency.STM) error {
				from, err := strconv.Atoi(stm.Get(account(n)))
				if err != nil {
					return err
				}
				to, err := strconv.Atoi(stm.Get(account(n + 1 + n/accounts%3)))
				if err != nil {
					return err
				}
				stm.Put(account(n), strconv.Itoa(from-1))
				stm.Put(account(n+1+n/accounts%3), strconv.Itoa(to+1))
				return nil
			}, concurrency.WithIsolation(concurrency.Serializable), concurrency.WithAbortContext(ctx))
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := together(movers, move); err != nil {
		return err
	}
	all, err := c.Get(ctx, "account/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	sum, versions := 0, int64(0)
	for _, kv := range all.Kvs {
		balance, err := strconv.Atoi(string(kv.Value))
		if err != nil {
			return err
		}
		sum += balance
		versions += kv.Version - 1
	}
	if sum != accounts*each || versions != 2*movers*moves {
		return fmt.Errorf("sum %d, %d writes", sum, versions)
	}
	return nil
}

// Each item comes out once, however many take from the queue.
func queues(ctx context.Context, c *clientv3.Client) error {
	const items, takers = 30, 3
	queue := recipe.NewQueue(c, "queue")
	var one sync.Mutex
	got := map[string]int{}
	taken := make(chan error, 1)
	go func() {
		taken <- together(takers, func() error {
			for range items / takers {
				item, err := queue.Dequeue()
				if err != nil {
					return err
				}
				one.Lock()
				got[item]++
				one.Unlock()
			}
			return nil
		})
	}()
	for n := range items {
		if err := queue.Enqueue(strconv.Itoa(n)); err != nil {
			return err
		}
	}
	select {
	case err := <-taken:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return errors.New("the queue is stuck")
	}
	if len(got) != items {
		return fmt.Errorf("%d items: %v", len(got), got)
	}
	urgent := recipe.NewPriorityQueue(c, "urgent")
	for _, priority := range []uint16{3, 1, 2} {
		if err := urgent.Enqueue(strconv.Itoa(int(priority)), priority); err != nil {
			return err
		}
	}
	for _, want := range []string{"1", "2", "3"} {
		if item, err := urgent.Dequeue(); err != nil || item != want {
			return fmt.Errorf("item %q, not %q, %w", item, want, err)
		}
	}
	barrier := recipe.NewBarrier(c, "barrier")
	if err := barrier.Hold(); err != nil {
		return err
	}
	waited := make(chan error, 1)
	go func() { waited <- recipe.NewBarrier(c, "barrier").Wait() }()
	if err := barrier.Release(); err != nil {
		return err
	}
	select {
	case err := <-waited:
		return err
	case <-ctx.Done():
		return errors.New("the barrier is stuck")
	}
}

// together runs so many at the same time, and gives the first error.
func together(count int, f func() error) error {
	ended := make(chan error, count)
	for range count {
		go func() { ended <- f() }()
	}
	for range count {
		if err := <-ended; err != nil {
			return err
		}
	}
	return nil
}
