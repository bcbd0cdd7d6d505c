package process

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/linux"
)

// User is an identity inside a container.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups; GID is the first of them.
	Groups []uint32
	// Home is the home directory; "/" when the image names none.
	Home string
}

// maxAccounts bounds /etc/passwd and /etc/group of an image.
const maxAccounts = 1 << 20

// LookupUser resolves the user of an image, in the form of the OCI image
// configuration: empty, "user", or "user:group", each a name of the image's
// /etc/passwd and /etc/group or a number. A text of digits is always a number,
// never a name. Supplementary groups are those that list the user, unless a
// group is given.
//
// root is the root directory. It is not trusted: files are opened below it and
// on its mount, read to 1 MiB, lines that are malformed are skipped. An
// unknown name, a number above 2^31-1, and an unreadable file that is needed
// are errdefs.ErrInvalid with a text for the tenant.
func LookupUser(root *os.File, user string) (User, error) {
	u, err := lookupUser(user, func(path string) (string, error) {
		data, err := linux.ReadRegularInRoot(root, path, maxAccounts)
		if errors.Is(err, os.ErrNotExist) {
			return "", nil
		}
		return string(data), err
	})
	if err != nil {
		return User{}, errdefs.WithPublic(fmt.Errorf("look up user %q: %w: %w", user, err, errdefs.ErrInvalid),
			fmt.Sprintf("the user %.128q of the image cannot be used", user))
	}
	return u, nil
}

// account is one line of passwd(5) or group(5).
type account struct {
	name    string
	id      uint32
	gid     uint32   // passwd only
	home    string   // passwd only
	members []string // group only
}

func lookupUser(user string, read func(path string) (string, error)) (User, error) {
	name, group, hasGroup := strings.Cut(user, ":")
	if name == "" && user != "" || hasGroup && group == "" || strings.Contains(group, ":") {
		return User{}, errors.New("malformed")
	}
	passwd, err := read("etc/passwd")
	if err != nil {
		return User{}, err
	}
	u := User{Home: "/"}
	var entry account
	if entry, err = resolve(name, accounts(passwd, 7)); err != nil {
		return User{}, err
	}
	u.UID, u.GID = entry.id, entry.gid
	if strings.HasPrefix(entry.home, "/") && !hasNUL(entry.home) {
		u.Home = entry.home
	}
	if !hasGroup && entry.name == "" {
		u.Groups = []uint32{u.GID}
		return u, nil // no file names this user
	}
	groups, err := read("etc/group")
	if err != nil {
		return User{}, err
	}
	if hasGroup {
		if entry, err = resolve(group, accounts(groups, 4)); err != nil {
			return User{}, err
		}
		u.GID = entry.id
		u.Groups = []uint32{u.GID}
		return u, nil
	}
	u.Groups = []uint32{u.GID}
	for g := range accounts(groups, 4) {
		if slices.Contains(g.members, entry.name) && !slices.Contains(u.Groups, g.id) {
			u.Groups = append(u.Groups, g.id)
		}
	}
	return u, nil
}

// resolve finds what text means: a number stands for itself, with what the
// first entry of that number adds; a name must be there. Empty is 0.
func resolve(text string, list iter.Seq[account]) (account, error) {
	if text == "" {
		text = "0"
	}
	id, numeric, err := parseID(text)
	if err != nil {
		return account{}, err
	}
	for a := range list {
		if numeric && a.id == id || !numeric && a.name == text {
			return a, nil
		}
	}
	if !numeric {
		return account{}, fmt.Errorf("no such name %q", text)
	}
	return account{id: id}, nil
}

// parseID tells numbers from names. Digits only are a number, which must be
// written as the kernel would and fit in 31 bits.
func parseID(text string) (id uint32, numeric bool, err error) {
	if strings.Trim(text, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0, true, fmt.Errorf("bad id %q", text)
	}
	return uint32(n), true, nil
}

// accounts yields the well-formed lines of a file with so many fields.
func accounts(file string, fields int) iter.Seq[account] {
	return func(yield func(account) bool) {
		for line := range strings.Lines(file) {
			f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
			if len(f) != fields || f[0] == "" {
				continue
			}
			id, numeric, err := parseID(f[2])
			if err != nil || !numeric || f[2] == "" {
				continue
			}
			a := account{name: f[0], id: id}
			if fields == 7 {
				gid, numeric, err := parseID(f[3])
				if err != nil || !numeric || f[3] == "" {
					continue
				}
				a.gid, a.home = gid, f[5]
			} else {
				a.members = strings.Split(f[3], ",")
			}
			if !yield(a) {
				return
			}
		}
	}
}
