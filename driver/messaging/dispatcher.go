package messaging

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// dispatcherModule is where oslo.messaging defines the two refusals. Nova's
// callers do not import it and see a RemoteError with the same text.
const dispatcherModule = "oslo_messaging.rpc.dispatcher"

// find returns the handler for a request: the endpoint's namespace is equal,
// its version compatible, and it has the method
// (oslo_messaging/rpc/dispatcher.py, dispatch). Methods whose name begins with
// an underscore do not exist for callers.
func find(endpoints []Endpoint, namespace, version, method string) (Handler, *RemoteError) {
	served := false
	for _, e := range endpoints {
		if e.Namespace != namespace || !compatible(e.Version, version) {
			continue
		}
		served = true
		if h := e.Methods[method]; h != nil && !strings.HasPrefix(method, "_") {
			return h, nil
		}
	}
	if served {
		return nil, &RemoteError{
			Class: "NoSuchMethod", Module: dispatcherModule,
			Message: fmt.Sprintf("Endpoint does not support RPC method %s", method),
		}
	}
	return nil, &RemoteError{
		Class: "UnsupportedVersion", Module: dispatcherModule,
		Message: fmt.Sprintf("Endpoint does not support RPC version %s. Attempted method: %s", version, method),
	}
}

// BaseEndpoint returns the endpoint that every Nova service has
// (nova/baserpc.py): ping, which answers with the service's name and the
// argument, and get_backdoor_port, which answers null.
func BaseEndpoint(service string) Endpoint {
	return Endpoint{
		Namespace: "baseapi", Version: "1.1",
		Methods: map[string]Handler{
			"ping": func(_ context.Context, req *Request) (any, error) {
				arg := req.Args["arg"]
				if arg == nil {
					arg = json.RawMessage("null")
				}
				return map[string]any{"service": service, "arg": arg}, nil
			},
			"get_backdoor_port": func(context.Context, *Request) (any, error) { return nil, nil },
		},
	}
}
