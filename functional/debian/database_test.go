//go:build debian

package debian

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/gantry-project/gantry/functional/cloudtest"
)

// clients of the database.
const clients = 4

// TestDatabase: a snapshot that is taken while PostgreSQL writes restores a
// consistent database, in which no row is missing that was acknowledged before.
func TestDatabase(t *testing.T) {
	p := cloudtest.Boot(t, filepath.Join(t.TempDir(), "state"))
	c := p.As(t, "demo")
	p.OpenStack(t, "admin", "flavor", "create", "--ram", "1024", "--disk", "20", "--vcpus", "2", "database")
	p.OpenStack(t, "demo", "image", "create", "--disk-format", "raw", "--container-format", "bare",
		"--file", filepath.Join(os.Getenv("GANTRY_DEBIAN_TREES"), "database.tar"), "database")
	boot := func(image, name string) string {
		return p.OpenStack(t, "demo", "server", "create", "--image", image, "--flavor", "database", "--network", "private", "--wait", "-f", "value", "-c", "id", name)
	}
	console := func(id string) (string, error) {
		return servers.ShowConsoleOutput(t.Context(), c.Compute, id, servers.ShowConsoleOutputOpts{}).Extract()
	}
	writer := boot("database", "writer")
	for round := range 3 {
		acknowledged := map[int]int{}
		cloudtest.Eventually(t, "rows of all clients", func() (bool, error) {
			text, err := console(writer)
			acknowledged = lastOf(text)
			enough := len(acknowledged) == clients
			for _, n := range acknowledged {
				enough = enough && n >= 500*(round+1)
			}
			return enough, err
		})
		name := fmt.Sprint("snapshot", round)
		p.OpenStack(t, "demo", "server", "image", "create", "--wait", "--name", name, "writer")
		id := boot(name, name)
		var text string
		cloudtest.Eventually(t, "the restored database", func() (_ bool, err error) {
			text, err = console(id)
			return strings.Contains(text, "restored and sound"), err
		})
		restored(t, text, acknowledged)
		p.OpenStack(t, "demo", "server", "delete", "--wait", name)
	}
	p.OpenStack(t, "demo", "server", "delete", "--wait", "writer")
}

var said = regexp.MustCompile(`(?m)^acknowledged (\d+) (\d+)\r?$`)

// lastOf is the last row of each client that its console says was acknowledged.
func lastOf(text string) map[int]int {
	out := map[int]int{}
	for _, m := range said.FindAllStringSubmatch(text, -1) {
		w, _ := strconv.Atoi(m[1])
		out[w], _ = strconv.Atoi(m[2])
	}
	return out
}

// restored compares what a restored database has with what was acknowledged: all
// rows up to the last that is there, and each as it was written.
func restored(t *testing.T, text string, acknowledged map[int]int) {
	t.Helper()
	found := 0
	for line := range strings.Lines(text) {
		var w, count, last, damaged int
		if n, _ := fmt.Sscanf(line, "restored %d %d %d %d", &w, &count, &last, &damaged); n != 4 {
			continue
		}
		found++
		t.Logf("client %d: %d rows restored, %d acknowledged before the snapshot", w, count, acknowledged[w])
		if count != last || damaged != 0 || last < acknowledged[w] {
			t.Errorf("client %d: %d rows up to %d, %d damaged, %d were acknowledged", w, count, last, damaged, acknowledged[w])
		}
	}
	if found != clients {
		t.Errorf("%d clients' rows:\n%s", found, text[max(0, len(text)-3000):])
	}
}
