package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/netbridge/netns"
)

// A look costs what every contender pays, so that it may be frequent.
const look = 2 * time.Millisecond

// poll asks until it is done.
func poll(ctx context.Context, every time.Duration, done func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// awaitRunning waits for what a unit of the guest writes once systemd says that
// the system is up (functional/bench-guest).
func awaitRunning(ctx context.Context, pid int) error {
	name := filepath.Join("/proc", fmt.Sprint(pid), "root/run/bench-state")
	err := poll(ctx, look, func() (bool, error) {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		state := strings.TrimSpace(string(text))
		if err == nil && state != "" && state != "running" && state != "degraded" {
			err = fmt.Errorf("systemd says it is %s", state)
		}
		return state != "", err
	})
	if err != nil {
		return fmt.Errorf("wait for systemd: %w", err)
	}
	return nil
}

// awaitSSH waits for the greeting of the guest's sshd on its loopback.
func awaitSSH(ctx context.Context, pid int) error {
	ns, err := netns.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := netns.Do(ns, func() error { return poll(ctx, look, greeted) }); err != nil {
		return fmt.Errorf("wait for sshd: %w", err)
	}
	return nil
}

func greeted() (bool, error) {
	// not package net, which would do it on any thread
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return false, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 22, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return false, nil // it does not listen yet
	}
	buf := make([]byte, 4)
	n, err := unix.Read(fd, buf)
	return err == nil && string(buf[:n]) == "SSH-", nil
}
