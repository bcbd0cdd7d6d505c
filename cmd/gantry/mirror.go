package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/internal/daemon"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/mirror"
)

// mirrorFlags are those of all commands that copy images.
type mirrorFlags struct {
	platform, cache string
	insecure        []string
}

func (f *mirrorFlags) add(cmd *cobra.Command) {
	cache := ""
	if dir, err := os.UserCacheDir(); err == nil {
		cache = filepath.Join(dir, "gantry", "mirror")
	}
	cmd.Flags().StringVar(&f.platform, "platform", "", "what to take of an image for several: OS/ARCH[/VARIANT]; default: this host's")
	cmd.Flags().StringSliceVar(&f.insecure, "insecure", nil, "host of a registry that is reached without TLS")
	cmd.Flags().StringVar(&f.cache, "cache", cache, "directory for blobs of a copy that was cut off; empty keeps none")
}

// options without the image service: it is asked for only when it is needed, as
// it needs credentials.
func (f *mirrorFlags) options(cmd *cobra.Command, local mirror.Local) mirror.Options {
	p := &progress{out: cmd.ErrOrStderr(), terminal: cmd.ErrOrStderr() == os.Stderr && isTerminal(os.Stderr)}
	return mirror.Options{
		Platform: f.platform, Insecure: f.insecure, Cache: f.cache, Local: local, Progress: p.tell,
		Log: zerolog.New(cmd.ErrOrStderr()).Level(zerolog.WarnLevel),
	}
}

// copyImage does one copy and says what came of it.
func copyImage(ctx context.Context, cmd *cobra.Command, opts mirror.Options, from, to mirror.Place) error {
	if opts.Images == nil && (from.Kind == mirror.Glance || to.Kind == mirror.Glance) {
		images, err := daemon.UserImages(opts.Log)
		if err != nil {
			return err
		}
		opts.Images = images
	}
	m, err := mirror.New(opts)
	if err != nil {
		return err
	}
	res, err := m.Copy(ctx, from, to)
	if err != nil {
		return err
	}
	return report(cmd.OutOrStdout(), to, res)
}

func report(w io.Writer, to mirror.Place, res mirror.Result) error {
	what := "copied"
	if res.Current {
		what = "up to date"
	}
	id := ""
	if res.ID != "" {
		id = " (" + res.ID + ")"
	}
	_, err := fmt.Fprintf(w, "%s%s: %s, %s\n", to, id, what, res.Digest)
	return err
}

func imagePullCommand() *cobra.Command {
	var f mirrorFlags
	cmd := operation("pull HOST/NAME[:TAG] [IMAGE]", "bring an image from a registry here", cobra.RangeArgs(1, 2), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		from, err := mirror.ParsePlace(args[0])
		if err != nil {
			return err
		}
		return copyImage(ctx, cmd, f.options(cmd, socketEngine{c}), from, mirror.Place{Kind: mirror.Engine, Name: args[len(args)-1]})
	})
	f.add(cmd)
	return cmd
}

func imagePushCommand() *cobra.Command {
	var f mirrorFlags
	cmd := operation("push IMAGE HOST/NAME[:TAG]", "send an image of this host to a registry", cobra.ExactArgs(2), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		to, err := mirror.ParsePlace(args[1])
		if err != nil {
			return err
		}
		return copyImage(ctx, cmd, f.options(cmd, socketEngine{c}), mirror.Place{Kind: mirror.Engine, Name: args[0]}, to)
	})
	f.add(cmd)
	return cmd
}

func imageMirrorCommand() *cobra.Command {
	var f mirrorFlags
	var toGlance, plan string
	cmd := operation("mirror FROM [TO]", "copy an image between a registry, an archive, a directory, Glance and this host", cobra.MaximumNArgs(2), func(ctx context.Context, c *api.Client, _ *target, cmd *cobra.Command, args []string) error {
		opts := f.options(cmd, socketEngine{c})
		if plan != "" {
			if len(args) > 0 || cmd.Flags().Changed("to-glance") {
				return fmt.Errorf("mirror: a plan says itself what to copy: %w", errdefs.ErrInvalid)
			}
			return runPlan(ctx, cmd, opts, plan)
		}
		places, err := mirrorPlaces(args, cmd.Flags().Changed("to-glance"), toGlance)
		if err != nil {
			return err
		}
		return copyImage(ctx, cmd, opts, places[0], places[1])
	})
	cmd.Long = "Copies an image. FROM and TO are HOST/NAME[:TAG] in a registry, file:PATH (an archive), dir:PATH (an OCI layout),\n" +
		"glance:NAME or glance:ID, or engine:NAME (this host). Glance is that of the OS_ variables of the environment."
	f.add(cmd)
	cmd.Flags().StringVar(&toGlance, "to-glance", "", "copy to Glance, under this name; without a value under the name and tag of FROM")
	cmd.Flags().Lookup("to-glance").NoOptDefVal = sameName
	cmd.Flags().StringVar(&plan, "plan", "", "copy what this mirror.yaml says, once")
	return cmd
}

// sameName stands for the name of what is copied: no image is called so.
const sameName = "\x00"

func mirrorPlaces(args []string, glance bool, name string) (places [2]mirror.Place, err error) {
	if len(args) == 0 || (len(args) == 2) == glance {
		return places, fmt.Errorf("mirror: give two places, or one and --to-glance: %w", errdefs.ErrInvalid)
	}
	for i, text := range args {
		if places[i], err = mirror.ParsePlace(text); err != nil {
			return places, err
		}
	}
	if glance {
		if name == sameName {
			name = shortName(places[0])
		}
		places[1] = mirror.Place{Kind: mirror.Glance, Name: name}
	}
	return places, nil
}

// shortName is NAME:TAG without the host, or the name of a file.
func shortName(p mirror.Place) string {
	switch p.Kind {
	case mirror.Registry:
		_, name, _ := strings.Cut(p.Name, "/")
		return name
	case mirror.File, mirror.Dir:
		return strings.TrimSuffix(filepath.Base(p.Name), filepath.Ext(p.Name))
	case mirror.Glance, mirror.Engine:
	}
	return p.Name
}

func runPlan(ctx context.Context, cmd *cobra.Command, opts mirror.Options, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	plan, err := mirror.ParsePlan(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if slices.ContainsFunc(plan.Images, func(e mirror.Entry) bool { return isGlance(e.From) || isGlance(e.To) }) {
		if opts.Images, err = daemon.UserImages(opts.Log); err != nil {
			return err
		}
	}
	m, err := mirror.New(opts)
	if err != nil {
		return err
	}
	failed := 0
	err = m.Run(ctx, plan, func(e mirror.Entry, res mirror.Result, err error) {
		if err != nil {
			failed++
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", e.To, err)
			return
		}
		to, _ := mirror.ParsePlace(e.To)
		_ = report(cmd.OutOrStdout(), to, res)
	})
	if err != nil {
		return fmt.Errorf("%d of %d images were not mirrored", failed, len(plan.Images))
	}
	return nil
}

func isGlance(text string) bool {
	p, err := mirror.ParsePlace(text)
	return err == nil && p.Kind == mirror.Glance
}

// socketEngine implements mirror.Local over the engine's socket.
type socketEngine struct{ c *api.Client }

// ID implements mirror.Local.
func (e socketEngine) ID(ctx context.Context, ref string) (string, error) {
	list, err := e.c.Images(ctx)
	if err != nil {
		return "", err
	}
	for _, img := range list {
		if img.Ref == ref {
			return img.ID, nil
		}
	}
	return "", fmt.Errorf("image %s: %w", ref, errdefs.ErrNotFound)
}

// Stored implements mirror.Local.
func (e socketEngine) Stored(ctx context.Context, ref string) ([]mirror.StoredLayer, error) {
	layers, err := e.c.History(ctx, ref)
	var out []mirror.StoredLayer
	for _, l := range layers {
		if l.Stored.Digest != "" {
			out = append(out, mirror.StoredLayer{Digest: l.Stored.Digest.String(), From: l.Stored.From})
		}
	}
	return out, err
}

// Export implements mirror.Local.
func (e socketEngine) Export(ctx context.Context, ref string, without []string) (io.ReadCloser, error) {
	return e.c.ExportImage(ctx, ref, without...)
}

// Import implements mirror.Local: the engine reads from a pipe.
func (e socketEngine) Import(ctx context.Context, ref, from string, archive io.Reader) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(w, archive)
		sent <- errors.Join(err, w.Close())
	}()
	_, err = e.c.Import(ctx, api.Import{Ref: ref, ContainerFormat: "docker", DiskFormat: "raw", From: from, Replace: true}, r)
	_ = r.Close() // a sender that is still there is told
	if serr := <-sent; serr != nil && !errors.Is(serr, syscall.EPIPE) {
		return serr // the engine only says that the archive is cut off
	}
	return err
}

// progress shows how far a copy is: on a terminal in one line, otherwise a line
// for each tenth.
type progress struct {
	out      io.Writer
	terminal bool
	tenth    int64
}

func (p *progress) tell(now mirror.Progress) {
	if now.Total <= 0 {
		return
	}
	tenth := now.Done * 10 / now.Total
	switch {
	case p.terminal:
		end := ""
		if now.Done >= now.Total {
			end = "\n"
		}
		_, _ = fmt.Fprintf(p.out, "\r%s of %s %3d %%%s", size(now.Done), size(now.Total), now.Done*100/now.Total, end)
	case tenth > p.tenth:
		_, _ = fmt.Fprintf(p.out, "%s of %s\n", size(now.Done), size(now.Total))
	}
	p.tenth = tenth
}
