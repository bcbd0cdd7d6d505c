// Command cmd writes the support matrix:
//
//	go run ./internal/matrix/cmd -results FILE... -write docs/support-matrix.md
//
// It is called in the root of the tree, where Nova's rows are in
// docs/support-matrix.yaml. -results takes any number of files that go test -json has written, up to the
// next flag; without any, every feature is unproven. Without -write the matrix
// goes to standard output.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gantry-project/gantry/internal/matrix"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	files, write, err := parse(args)
	if err != nil {
		return err
	}
	results := matrix.Results{}
	for _, name := range files {
		if err := readFile(results, name); err != nil {
			return err
		}
	}
	var b strings.Builder
	if err := matrix.Write(&b, matrix.Features(), results); err != nil {
		return err
	}
	if err := writeRows(&b, results); err != nil {
		return err
	}
	if write == "" {
		_, err := io.WriteString(stdout, b.String())
		return err
	}
	return os.WriteFile(write, []byte(b.String()), 0o644)
}

// writeRows adds Nova's matrix, from the tree that the command is called in.
func writeRows(w io.Writer, results matrix.Results) error {
	f, err := os.Open("docs/support-matrix.yaml")
	if err != nil {
		return err
	}
	defer f.Close()
	rows, err := matrix.ReadRows(f)
	if err != nil {
		return err
	}
	files, err := matrix.Locate(".")
	if err != nil {
		return err
	}
	return matrix.WriteRows(w, rows, files, results)
}

// parse reads the command line; package flag cannot take a list.
func parse(args []string) (files []string, write string, err error) {
	flag := ""
	for _, a := range args {
		switch {
		case a == "-results", a == "-write":
			flag = a
		case flag == "-results":
			files = append(files, a)
		case flag == "-write" && write == "":
			write = a
		default:
			return nil, "", fmt.Errorf("unexpected argument %q; usage: -results FILE... [-write FILE]", a)
		}
	}
	return files, write, nil
}

func readFile(results matrix.Results, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := results.Read(f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
