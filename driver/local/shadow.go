package local

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/go-crypt/crypt/algorithm/shacrypt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// shadowPath holds the passwords of a guest, in the form of shadow(5).
const shadowPath = "/etc/shadow"

// crypt hashes a password by SHA-512 crypt, which every libc of a guest knows.
func crypt(password string) (string, error) {
	h, err := shacrypt.New(shacrypt.WithSHA512(), shacrypt.WithRounds(5000))
	if err != nil {
		return "", fmt.Errorf("hash of a password: %w", err)
	}
	digest, err := h.Hash(password)
	if err != nil {
		return "", fmt.Errorf("hash of a password: %w", err)
	}
	return digest.Encode(), nil
}

// reshadow returns the file with the hash, and the day of the change, in the
// line of user; everything else stays byte for byte. A file without such a line
// is errdefs.ErrNotFound.
func reshadow(file []byte, user, hash string, now time.Time) ([]byte, error) {
	lines := bytes.SplitAfter(file, []byte("\n"))
	for i, line := range lines {
		fields := bytes.Split(line, []byte(":"))
		if string(fields[0]) != user || len(fields) < 3 {
			continue
		}
		fields[1] = []byte(hash)
		if len(fields) > 3 { // else the third holds the end of the line
			fields[2] = strconv.AppendInt(nil, now.Unix()/86400, 10)
		}
		lines[i] = bytes.Join(fields, []byte(":"))
		return bytes.Join(lines, nil), nil
	}
	return nil, fmt.Errorf("no line of user %s: %w", user, errdefs.ErrNotFound)
}
