package driver

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// maxPassword (bytes) is more than anybody types and less than a hash must chew on.
const maxPassword = 1024

var userName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_.-]{0,31}$`)

// CheckPassword says whether user and password are what PasswordSetter takes;
// errdefs.ErrInvalid with a public text if not.
func CheckPassword(user, password string) error {
	cause := ""
	switch {
	case !userName.MatchString(user):
		cause = "The user name is not one that a guest can have."
	case password == "":
		cause = "The password is empty."
	case len(password) > maxPassword:
		cause = fmt.Sprintf("The password is longer than %d bytes.", maxPassword)
	case strings.ContainsAny(password, "\x00\r\n"):
		cause = "The password has a line break or a zero byte."
	default:
		return nil
	}
	return errdefs.WithPublic(fmt.Errorf("password of %.64q: %w", user, errdefs.ErrInvalid), cause)
}
