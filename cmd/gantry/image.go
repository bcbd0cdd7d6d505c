package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/engine/api"
)

func imagesCommand() *cobra.Command {
	var asJSON bool
	cmd := operation("images", "list images", cobra.NoArgs, func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, _ []string) error {
		list, err := c.Images(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return jsonTo(cmd.OutOrStdout(), list)
		}
		rows := make([]string, len(list))
		for i, img := range list {
			kind := "image"
			if img.RootFS {
				kind = "rootfs"
			}
			rows[i] = fmt.Sprintf("%s\t%s\t%s", plain(img.Ref, 80), kind, size(img.Size))
		}
		return rowsTo(cmd.OutOrStdout(), "IMAGE\tKIND\tSIZE", rows)
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "as a JSON document")
	return cmd
}

func imageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "list, import, export, pull, push, mirror and remove images", Args: cobra.NoArgs}
	list := imagesCommand()
	list.Use = "list"
	cmd.AddCommand(list, imageImportCommand(), imageExportCommand(), imagePruneCommand(), imagePullCommand(),
		imagePushCommand(), imageMirrorCommand(), operation("rm IMAGE...", "remove images that no container uses", cobra.MinimumNArgs(1), func(ctx context.Context, c *api.Client, _ *target, _ *cobra.Command, args []string) error {
			return eachArg(args, func(ref string) error { return c.RemoveImage(ctx, ref) })
		}))
	return cmd
}

func imageExportCommand() *cobra.Command {
	var output string
	cmd := operation("export IMAGE", "write an image as an OCI archive", cobra.ExactArgs(1), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		r, err := c.ExportImage(ctx, args[0])
		return save(cmd, output, r, err)
	})
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file to write; - is the standard output")
	return cmd
}

func imagePruneCommand() *cobra.Command {
	var unused time.Duration
	var dry bool
	cmd := operation("prune", "remove images that no container uses", cobra.NoArgs, func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, _ []string) error {
		gone, err := c.Prune(ctx, api.Prune{KeepFor: unused.Seconds(), DryRun: dry})
		if err != nil {
			return err
		}
		for _, ref := range gone.Images {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), plain(ref, 200)); err != nil {
				return err
			}
		}
		done := "freed"
		if dry {
			done = "would be freed"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d images, %d layers, %s %s\n", len(gone.Images), len(gone.Layers), size(gone.Bytes), done)
		return err
	})
	cmd.Flags().DurationVar(&unused, "unused-for", 0, "only those that nothing has used for so long")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "remove nothing, show what would go")
	return cmd
}

func imageImportCommand() *cobra.Command {
	var req api.Import
	cmd := operation("import FILE [NAME]", "import an archive (docker save, OCI layout, or a root file system as tar)", cobra.RangeArgs(1, 2), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		f := os.Stdin
		if args[0] != "-" {
			var err error
			if f, err = os.Open(args[0]); err != nil {
				return err
			}
			defer f.Close()
		}
		req.Ref = filepath.Base(args[0])
		if len(args) > 1 {
			req.Ref = args[1]
		}
		img, err := c.Import(ctx, req, f)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), img.Ref)
		return err
	})
	cmd.Flags().StringVar(&req.ContainerFormat, "container-format", "", "as Glance calls it: docker, or bare; default: what the archive is")
	cmd.Flags().StringVar(&req.DiskFormat, "disk-format", "", "as Glance calls it: raw or qcow2; default: what the file is")
	return cmd
}
