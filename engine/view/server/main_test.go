package server_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/engine/view/server"
)

// serveArg makes the test binary a server: directory, tree and build follow.
const serveArg = "serve-view"

func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == serveArg {
		err := server.Serve(context.Background(), server.ServeOptions{
			Dir: os.Args[2], Cgroup: os.Args[3], Build: os.Args[4], Log: zerolog.New(os.Stderr),
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
