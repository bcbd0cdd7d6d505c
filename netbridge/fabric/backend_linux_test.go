package fabric_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// programs is the variable that makes hosts filter by programs (fabric.Options).
const programs = "GANTRY_TEST_PROGRAMS"

// TestBothBackEnds: iptables stands for one of two programs, and all is the same
// with either.
func TestBothBackEnds(t *testing.T) {
	for _, end := range []string{"nft", "legacy"} {
		t.Run(end, func(t *testing.T) {
			bin := t.TempDir()
			for _, family := range []string{"iptables", "ip6tables"} {
				for _, verb := range []string{"", "-save", "-restore"} {
					real, err := exec.LookPath(family + "-" + end + verb)
					if err != nil {
						t.Fatal(err)
					}
					if err := os.Symlink(real, filepath.Join(bin, family+verb)); err != nil {
						t.Fatal(err)
					}
				}
			}
			t.Setenv(programs, "yes")
			t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			t.Run("attacks", TestAttacks)
			t.Run("groups", TestSecurityGroups)
			t.Run("before the rules", TestNothingGetsOutBeforeTheRules)
			t.Run("floating addresses", TestFloatingAddresses)
			t.Run("nothing is left", TestTwiceIsOnceAndNothingIsLeft)
			t.Run("every rule", TestEveryRuleIsTaken)
			t.Run("ports", TestPortsAreSyncedAndRemoved)
		})
	}
}
