package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func commitCommand() *cobra.Command {
	var output string
	var delta bool
	cmd := operation("commit CONTAINER [IMAGE]", "make an image of a container's disk, here or as an OCI archive", cobra.RangeArgs(1, 2), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		switch {
		case (output != "") == (len(args) > 1):
			return fmt.Errorf("commit: give the name of an image, or a file by --output: %w", errdefs.ErrInvalid)
		case output == "" && delta:
			return fmt.Errorf("commit: a delta goes to a file (--output): %w", errdefs.ErrInvalid)
		case output == "":
			img, err := c.CommitImage(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), img.Ref)
			return err
		case delta:
			r, err := c.CommitDelta(ctx, args[0])
			return save(cmd, output, r, err)
		}
		r, err := c.Commit(ctx, args[0])
		return save(cmd, output, r, err)
	})
	cmd.Flags().StringVarP(&output, "output", "o", "", "write an OCI archive to this file; - is the standard output")
	cmd.Flags().BoolVar(&delta, "delta", false, "only what the container has written: it can be imported where its image is")
	return cmd
}

func diffCommand() *cobra.Command {
	var asJSON bool
	cmd := operation("diff CONTAINER", "list how a container's files differ from its image's", cobra.ExactArgs(1), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		list, err := c.Changes(ctx, args[0])
		if err != nil {
			return err
		}
		if asJSON {
			return jsonTo(cmd.OutOrStdout(), list)
		}
		for _, d := range list {
			// A, M or D, as docker diff has almost the same
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", strings.ToUpper(string(d.Kind[:1])), plain(d.Path, 4096)); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "as a JSON document")
	return cmd
}

func exportCommand() *cobra.Command {
	var output string
	cmd := operation("export CONTAINER", "write a container's whole file system as a tar", cobra.ExactArgs(1), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		r, err := c.Export(ctx, args[0])
		return save(cmd, output, r, err)
	})
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file to write; - is the standard output")
	return cmd
}

func historyCommand() *cobra.Command {
	var asJSON bool
	cmd := operation("history IMAGE", "show the layers of an image, the top one first", cobra.ExactArgs(1), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		list, err := c.History(ctx, args[0])
		if err != nil {
			return err
		}
		if asJSON {
			return jsonTo(cmd.OutOrStdout(), list)
		}
		rows := make([]string, len(list))
		for i, l := range list {
			created, bytes := "-", "-"
			if !l.Created.IsZero() {
				created = l.Created.Local().Format(time.DateTime)
			}
			if l.Size >= 0 {
				bytes = size(l.Size)
			}
			rows[len(list)-1-i] = fmt.Sprintf("%.19s\t%s\t%s\t%s", l.DiffID, created, bytes, plain(l.CreatedBy, 60))
		}
		return rowsTo(cmd.OutOrStdout(), "LAYER\tCREATED\tSIZE\tCREATED BY", rows)
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "as a JSON document, the lowest layer first")
	return cmd
}

// save writes a stream to a file that only its owner reads and that appears when
// it is whole, or to the standard output.
func save(cmd *cobra.Command, name string, r io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	defer r.Close()
	if name == "-" {
		if cmd.OutOrStdout() == os.Stdout && isTerminal(os.Stdout) {
			return fmt.Errorf("an archive is nothing for a terminal: name a file by --output: %w", errdefs.ErrInvalid)
		}
		_, err := io.Copy(cmd.OutOrStdout(), r)
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
