// Command probe is what hostile code does in a container, for the tests of
// engine/security_test.go: they build it statically, put it into images and
// read what it says. Each verb ends when its work is done, or when the file
// that it is given exists. It is for tests only.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

func main() {
	verbs := map[string]func(out io.Writer, args []string) error{
		"calls":     func(out io.Writer, _ []string) error { return calls(out) },
		"spy":       func(out io.Writer, args []string) error { return spy(out, args[0]) },
		"hold":      func(_ io.Writer, args []string) error { return hold(args[0], args[1]) },
		"overwrite": func(out io.Writer, args []string) error { return overwrite(out, args[0]) },
		"swap":      func(_ io.Writer, args []string) error { return swap(args[0], args[1], args[2]) },
		"reach":     func(out io.Writer, _ []string) error { return reach(out) },
		"system":    func(out io.Writer, args []string) error { return system(out, args[0], args[1:]) },
		"flood":     func(out io.Writer, args []string) error { return flood(out, args[0]) },
	}
	if filepath.Base(os.Args[0]) == "init" { // as the first process; 37 is SIGRTMIN+3, for a power-off (systemd(1), Signals)
		os.Args = append(os.Args[:1], "system", "/lib/sh/systemd", "sh", "-c",
			"trap 'echo down; exec /lib/sh/poweroff -f' 37; echo up; while :; do sleep 1000 & wait $!; done")
	}
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "probe: which verb?")
		os.Exit(2)
	}
	if err := verbs[os.Args[1]](os.Stdout, os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

// there reports whether the file that ends a verb exists.
func there(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// flood writes that many bytes in lines and a last one that says so.
func flood(out io.Writer, size string) error {
	left, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	line := make([]byte, 4096)
	for i := range line {
		line[i] = 'x'
	}
	line[len(line)-1] = '\n'
	for ; left > 0; left -= len(line) {
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	_, err = io.WriteString(out, "flooded\n")
	return err
}
