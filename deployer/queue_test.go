package deployer

import (
	"context"
	"errors"
	"testing"
)

func TestQueueIsFirstComeFirstServed(t *testing.T) {
	q := queue{lines: map[string][]*ticket{}}
	ctx := t.Context()
	never := func(*ticket) { t.Error("told to wait, though nobody is ahead") }
	leave, err := q.enter(ctx, "blog", "deploying 1", "ada", never)
	if err != nil {
		t.Fatal(err)
	}
	// Another app is another line.
	other, err := q.enter(ctx, "blog-api", "deploying", "bob", never)
	if err != nil {
		t.Fatal(err)
	}
	other()

	order := make(chan string, 2)
	enter := func(name, behind string) {
		waiting := make(chan struct{})
		go func() {
			leave, err := q.enter(ctx, "blog", name, "bob", func(ahead *ticket) {
				if ahead.what != behind {
					t.Errorf("%s waits behind %q, want %q", name, ahead.what, behind)
				}
				close(waiting)
			})
			if err != nil {
				t.Error(err)
				return
			}
			order <- name
			leave()
		}()
		<-waiting
	}
	enter("deploying 2", "deploying 1")
	enter("deploying 3", "deploying 2")
	leave()
	if a, b := <-order, <-order; a != "deploying 2" || b != "deploying 3" {
		t.Errorf("order %s, %s", a, b)
	}
}

// Who waits and leaves is dropped, and holds up nobody.
func TestQueueDropsWhoLeaves(t *testing.T) {
	q := queue{lines: map[string][]*ticket{}}
	leave, _ := q.enter(t.Context(), "blog", "1", "", nil)
	gone, cancel := context.WithCancelCause(t.Context())
	left := errors.New("left")
	_, err := q.enter(gone, "blog", "2", "", func(*ticket) { cancel(left) })
	if !errors.Is(err, left) {
		t.Fatalf("got %v", err)
	}
	leave()
	if _, err := q.enter(t.Context(), "blog", "3", "", func(*ticket) { t.Error("had to wait") }); err != nil {
		t.Fatal(err)
	}
}

// Housekeeping is nobody's business: a push behind it is not told to wait.
func TestQueueIsSilentAboutHousekeeping(t *testing.T) {
	q := queue{lines: map[string][]*ticket{}}
	leave, err := q.enterQuietly(t.Context(), "blog")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := q.enter(t.Context(), "blog", "deploying", "", func(*ticket) { t.Error("told to wait") }); err != nil {
			t.Error(err)
		}
	}()
	leave()
	<-done
}
