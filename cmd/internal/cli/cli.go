// Package cli is what the programs of this folder have in common.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
)

// Status ends the program with the status of a command that it ran.
type Status int

// Error is never shown.
func (s Status) Error() string { return "exit status " + strconv.Itoa(int(s)) }

// Configuration is the status of a service whose configuration cannot be used
// (EX_CONFIG of sysexits.h), so that a service manager does not try it again.
const Configuration Status = 78

// Failure is an error that is shown and ends the program with a status of its
// own.
type Failure struct {
	Status Status
	Err    error
}

// Error is the error's.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the error.
func (f *Failure) Unwrap() error { return f.Err }

// Main runs a command, which SIGTERM and SIGINT cancel, and ends the program:
// with a Status where the command returns one; with 1, or a Failure's status,
// and the error on standard error, after the program's name, otherwise.
func Main(cmd *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := cmd.ExecuteContext(ctx)
	stop()
	if status, ok := errors.AsType[Status](err); ok {
		os.Exit(int(status))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, cmd.Name()+":", err)
		status := 1
		if f, ok := errors.AsType[*Failure](err); ok {
			status = int(f.Status)
		}
		os.Exit(status)
	}
}

// Add adds the verbs whose names are among the words, or all if none is. Making
// all takes as long as many a verb. It changes verbs.
func Add(cmd *cobra.Command, words []string, verbs map[string]func() *cobra.Command) {
	found := false
	for _, word := range words {
		if v, ok := verbs[word]; ok {
			found = true
			cmd.AddCommand(v())
			delete(verbs, word)
		}
	}
	if found {
		cmd.CompletionOptions.DisableDefaultCmd = true
		return
	}
	for _, v := range verbs {
		cmd.AddCommand(v()) // sorted by cobra
	}
}
