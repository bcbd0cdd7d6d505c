package openstack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"

	"github.com/gophercloud/gophercloud/v2"
)

// UserAuth says for whom a request is made.
type UserAuth struct {
	// Token is the user's. Empty means the service's own credentials.
	Token string
	// RequestID goes along as X-Openstack-Request-Id, so that the logs of all
	// services tell one story. May be empty.
	RequestID string
}

// AsService returns the same request made with the service's own credentials.
func (a UserAuth) AsService() UserAuth { return UserAuth{RequestID: a.RequestID} }

// Client reaches one service. Safe for concurrent use.
type Client struct {
	s           *Session
	serviceType string
	service     *Session
}

// Service returns a client for the service of that type ("network", "image",
// "placement"); the session's ServiceType option wins. With serviceUser set,
// requests with a user's token carry that session's token as X-Service-Token,
// so that services accept a user token which has expired meanwhile
// ([service_user] send_service_user_token).
func (s *Session) Service(serviceType string, serviceUser *Session) *Client {
	if s.opts.ServiceType != "" {
		serviceType = s.opts.ServiceType
	}
	return &Client{s: s, serviceType: serviceType, service: serviceUser}
}

// Request is one call of a service.
type Request struct {
	Method string
	// Path begins with the API version: "/v2.0/ports".
	Path  string
	Query url.Values
	// Header adds header fields.
	Header map[string]string
	// Body is encoded as JSON; nil sends none. Stream is sent as it is instead,
	// once: such a request is never repeated.
	Body   any
	Stream io.Reader
	// Into receives the JSON answer; nil drops it.
	Into any
}

const serviceToken = "X-Service-Token"

// anySuccess accepts every 2xx: callers look at the content, not the number.
var anySuccess = []int{200, 201, 202, 203, 204, 205, 206}

// Do makes a request and reads its answer. Answers other than 2xx are a
// *StatusError; every error but the end of ctx has a class (see Classify). A try that fails
// before the request was sent, or whose method is idempotent, is repeated as
// often as the session's ConnectRetries says. A redirect is never followed.
func (c *Client) Do(ctx context.Context, auth UserAuth, req Request) error {
	limited, cancel := context.WithTimeout(ctx, c.s.callLimit())
	defer cancel()
	resp, err := c.Open(limited, auth, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, maxJSONBody)
	if req.Into == nil || resp.StatusCode == http.StatusNoContent {
		_, err = io.Copy(io.Discard, body)
	} else {
		err = json.NewDecoder(body).Decode(req.Into)
	}
	if err != nil {
		return Classify(ctx, req.Method+" "+req.Path+": read answer", err)
	}
	return nil
}

// Open makes a request and returns the answer with its body unread; the caller
// closes it. Errors as Do. Reading the body is bounded by ctx alone.
func (c *Client) Open(ctx context.Context, auth UserAuth, req Request) (*http.Response, error) {
	op := req.Method + " " + req.Path
	sc, err := c.Gophercloud(ctx, auth)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	opts := &gophercloud.RequestOpts{
		JSONBody: req.Body, RawBody: req.Stream, MoreHeaders: maps.Clone(req.Header),
		OkCodes: anySuccess, KeepResponseBody: true,
	}
	switch {
	case req.Stream != nil:
		sc.ReauthFunc = nil // the body is gone after one try
	case auth.Token != "" && c.service != nil:
		// A 401 may mean our token beside the user's: replace it, once.
		sc.ReauthFunc = func(ctx context.Context) error {
			c.service.forget(opts.MoreHeaders[serviceToken])
			token, err := c.service.Token(ctx)
			opts.MoreHeaders[serviceToken] = token
			return err
		}
	}
	target := sc.Endpoint + req.Path[1:]
	if len(req.Query) > 0 {
		target += "?" + req.Query.Encode()
	}
	resp, err := sc.Request(ctx, req.Method, target, opts)
	if err != nil {
		return nil, Classify(ctx, op, err)
	}
	return resp, nil
}

// Gophercloud returns a gophercloud client for one or a few requests in the
// name of auth; it is cheap and must not be kept. Its Endpoint has no version
// and ends in a slash. Give the errors of its calls to Classify.
func (c *Client) Gophercloud(ctx context.Context, auth UserAuth) (*gophercloud.ServiceClient, error) {
	cred := &credential{}
	if auth.Token == "" || c.s.opts.EndpointOverride == "" {
		var err error
		if cred, err = c.s.credential(ctx); err != nil {
			return nil, err
		}
	}
	base, err := c.s.endpoint(cred, c.serviceType)
	if err != nil {
		return nil, err
	}
	sc := &gophercloud.ServiceClient{
		ProviderClient: c.s.provider(cred.token),
		Endpoint:       base + "/",
		Type:           c.serviceType,
		MoreHeaders:    map[string]string{},
	}
	if auth.RequestID != "" {
		sc.MoreHeaders["X-Openstack-Request-Id"] = auth.RequestID
	}
	if auth.Token == "" {
		sc.ReauthFunc = func(ctx context.Context) error {
			c.s.forget(sc.TokenID)
			token, err := c.s.Token(ctx)
			sc.TokenID = token
			return err
		}
		return sc, nil
	}
	sc.TokenID = auth.Token
	if c.service != nil {
		if sc.MoreHeaders[serviceToken], err = c.service.Token(ctx); err != nil {
			return nil, err
		}
	}
	return sc, nil
}
