package glance

import (
	"context"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/openstack"
)

// Options are the settings of [glance] that concern images.
type Options struct {
	// Tries bounds how often a download is begun or taken up again. Default 4
	// (num_retries 3), at most 5.
	Tries int
	// Stall is how long a transfer may stand still. Default 60 s. Time that the
	// other side of a stream takes (writing a layer, packing a snapshot) does
	// not count.
	Stall time.Duration
	// Backoff is the first pause before a download is taken up again; it
	// doubles. Default 500 ms.
	Backoff time.Duration
	// UploadRate bounds an upload (bytes a second); 0 is no bound.
	UploadRate int64
	// Progress is the time between two lines in the log about an upload under
	// way. Default 10 s.
	Progress time.Duration
}

const maxTries = 5

// REST is the slice of openstack.Client that is used here.
type REST interface {
	Do(ctx context.Context, auth openstack.UserAuth, req openstack.Request) error
	Open(ctx context.Context, auth openstack.UserAuth, req openstack.Request) (*http.Response, error)
}

// Client reads and writes images. Safe for concurrent use.
type Client struct {
	rest REST
	opts Options
	log  zerolog.Logger
}

// New returns a client for the image service behind rest. It sends nothing.
func New(rest REST, opts Options, log zerolog.Logger) *Client {
	if opts.Tries <= 0 {
		opts.Tries = 4
	}
	opts.Tries = min(opts.Tries, maxTries)
	if opts.Stall <= 0 {
		opts.Stall = 60 * time.Second
	}
	if opts.Backoff <= 0 {
		opts.Backoff = 500 * time.Millisecond
	}
	if opts.Progress <= 0 {
		opts.Progress = 10 * time.Second
	}
	return &Client{rest: rest, opts: opts, log: log}
}
