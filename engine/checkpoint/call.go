package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// maxAnswer is more than criu ever says at once, maxFiles more than it sends.
const (
	maxAnswer = 64 << 10
	maxFiles  = 8
)

// logLevel is criu's -v4: its log names the file or the mount that stood in
// the way.
const logLevel = 4

// A call is one request of a criu of its own ("criu swrk FD").
type call struct {
	program string
	typ     int
	opts    message
	// dir is the checkpoint, logFile a name among its images.
	dir, logFile string
	// start starts the command and returns the directory of the images, as the
	// command sees it.
	start func(cmd *exec.Cmd) (images *os.File, err error)
	// notified hears of the points that criu comes to. It takes the files.
	notified func(a answer, files []*os.File) error
}

// run makes the request and returns when criu has ended. It is never killed,
// because that would leave processes behind that are half what they were: when
// ctx has ended, or notified fails, the next notification is answered with a
// refusal and criu undoes what it did.
func (c *call) run(ctx context.Context) (answer, error) {
	ours, theirs, err := linux.SeqpacketPair()
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = ours.Close() }()
	cmd := exec.Command(c.program, "swrk", "3") //nolint:noctx // see above
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env, cmd.Dir = environment(), "/"
	images, err := c.start(cmd)
	_ = theirs.Close()
	if err != nil {
		return answer{}, fmt.Errorf("start criu: %w", err)
	}
	defer func() { _ = images.Close() }()
	a, err := c.talk(ctx, ours, images)
	_ = ours.Close()
	waited := cmd.Wait()
	if err == nil && !a.success {
		err = errors.New("criu failed")
	}
	if err == nil {
		return a, nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w: %w", err, context.Cause(ctx), errdefs.ErrAborted)
	} else if waited != nil {
		err = fmt.Errorf("%w (%w)", err, waited)
	}
	return a, fmt.Errorf("%w%s", err, reason(filepath.Join(c.dir, imagesName, c.logFile)))
}

func environment() []string { return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"} }

// talk sends the request and serves notifications until there is a result.
func (c *call) talk(ctx context.Context, sock, images *os.File) (answer, error) {
	opts := c.opts.number(optImagesDir, uint64(images.Fd())).number(optLogLevel, logLevel).text(optLogFile, c.logFile).
		flag(optNotify, true)
	if _, err := sock.Write(message{}.number(reqType, uint64(c.typ)).text(reqOpts, string(opts))); err != nil {
		return answer{}, fmt.Errorf("ask criu: %w", err)
	}
	buf := make([]byte, maxAnswer)
	var failed error
	for {
		n, files, err := linux.RecvFiles(sock, buf, maxFiles)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return answer{}, errors.Join(failed, fmt.Errorf("criu ended without an answer: %w", err))
		}
		a, err := parseAnswer(buf[:n])
		if err != nil {
			linux.CloseAll(files)
			return answer{}, errors.Join(failed, err)
		}
		if a.typ != typeNotify {
			linux.CloseAll(files)
			return a, failed
		}
		if failed == nil {
			failed = ctx.Err()
		}
		if failed == nil && c.notified != nil {
			failed = c.notified(a, files)
		} else {
			linux.CloseAll(files)
		}
		ok := uint64(0)
		if failed == nil {
			ok = 1
		}
		if _, err := sock.Write(message{}.number(reqType, typeNotify).number(reqNotifySuccess, ok)); err != nil {
			return answer{}, errors.Join(failed, fmt.Errorf("answer criu: %w", err))
		}
	}
}

// reason is what criu's log ends with, for an error text: its last errors, but for
// that it failed. The first of them tends to be the cause.
func reason(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	const shown, most = 3, 200
	var errs []string
	for line := range strings.Lines(string(text)) {
		_, said, isError := strings.Cut(line, "Error (")
		if !isError || strings.HasSuffix(strings.TrimSpace(said), "FAILED.") {
			continue
		}
		if _, after, ok := strings.Cut(said, "): "); ok {
			said = after
		}
		said = strings.TrimSpace(said)
		errs = append(errs, said[:min(len(said), most)])
	}
	if len(errs) == 0 {
		return ""
	}
	return ": " + strconv.Quote(strings.Join(errs[max(0, len(errs)-shown):], "; "))
}
