package partition_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/engine/disk/partition"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	mib      = 1 << 20
	diskSize = 64 * mib
	linux    = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	efi      = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	root     = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
)

// table makes a disk with what sfdisk makes of the script.
func table(t testing.TB, script string, args ...string) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Truncate(name, diskSize)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sfdisk", append(args, "-q", name)...)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func read(data []byte) (*partition.Table, error) {
	return partition.Read(bytes.NewReader(data), int64(len(data)))
}

const (
	gptScript = "label: gpt\nstart=1MiB, size=2MiB, type=" + efi + ", name=\"EFI System Partition\"\nstart=4MiB, size=20MiB, type=" + root + ", name=\"Würzel\"\n" +
		"start=30MiB, type=" + linux + "\n"
	mbrScript      = "label: dos\nstart=1MiB, size=2MiB, type=83, bootable\nstart=4MiB, size=20MiB, type=82\n"
	extendedScript = "label: dos\n1: start=1MiB, size=2MiB, type=83\n2: start=4MiB, size=50MiB, type=5\n5: start=5MiB, size=10MiB, type=83\n6: start=20MiB, size=10MiB, type=8e\n7: start=40MiB, size=10MiB, type=fd\n"
)

func gptWant() *partition.Table {
	return &partition.Table{Kind: partition.GPT, Partitions: []partition.Partition{
		{Number: 1, Start: mib, Size: 2 * mib, Type: efi, Name: "EFI System Partition"},
		{Number: 2, Start: 4 * mib, Size: 20 * mib, Type: root, Name: "Würzel"},
		{Number: 3, Start: 30 * mib, Size: 33 * mib, Type: linux},
	}}
}

func TestRead(t *testing.T) {
	gpt := table(t, gptScript)
	noPrimary, noBackup := bytes.Clone(gpt), bytes.Clone(gpt)
	clear(noPrimary[512:1024])
	clear(noBackup[len(gpt)-512:])
	badEntries := bytes.Clone(gpt)
	badEntries[1024+32]++
	boot := make([]byte, diskSize)
	copy(boot[mbrMark:], "\x55\xaa")
	copy(boot[446:], "some code")
	stale := bytes.Clone(gpt)
	copy(stale[446:512], table(t, mbrScript)[446:512])
	for name, c := range map[string]struct {
		disk []byte
		want *partition.Table
	}{
		"GPT":                   {gpt, gptWant()},
		"GPT, backup only":      {noPrimary, gptWant()},
		"GPT, primary only":     {noBackup, gptWant()},
		"GPT, entries damaged":  {badEntries, gptWant()},
		"GPT, grown":            {append(bytes.Clone(gpt), make([]byte, mib)...), gptWant()},
		"GPT, 4096 bytes":       {gpt4096(t), &partition.Table{Kind: partition.GPT, Partitions: []partition.Partition{{Number: 1, Start: mib, Size: mib, Type: "00010203-0405-0607-0809-0a0b0c0d0e0f"}}}},
		"GPT that MBR replaced": {stale, mbrWant()},
		"MBR":                   {table(t, mbrScript), mbrWant()},
		"MBR, extended": {table(t, extendedScript), &partition.Table{Kind: partition.MBR, Partitions: []partition.Partition{
			{Number: 1, Start: mib, Size: 2 * mib, Type: "0x83"},
			{Number: 5, Start: 5 * mib, Size: 10 * mib, Type: "0x83"},
			{Number: 6, Start: 20 * mib, Size: 10 * mib, Type: "0x8e"},
			{Number: 7, Start: 40 * mib, Size: 10 * mib, Type: "0xfd"},
		}}},
		"MBR, extended and empty": {table(t, "label: dos\nstart=1MiB, size=2MiB, type=5\n"), &partition.Table{Kind: partition.MBR}},
		"GPT, empty":              {table(t, "label: gpt\n"), &partition.Table{Kind: partition.GPT}},
		"zeros":                   {make([]byte, mib), &partition.Table{Kind: partition.None}},
		"tiny":                    {make([]byte, 100), &partition.Table{Kind: partition.None}},
		"boot sector":             {boot, &partition.Table{Kind: partition.None}},
		"MBR without partitions":  {table(t, "label: dos\n"), &partition.Table{Kind: partition.None}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(c.disk)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

const mbrMark = 510

func mbrWant() *partition.Table {
	return &partition.Table{Kind: partition.MBR, Partitions: []partition.Partition{
		{Number: 1, Start: mib, Size: 2 * mib, Type: "0x83"}, {Number: 2, Start: 4 * mib, Size: 20 * mib, Type: "0x82"},
	}}
}

// gpt4096 is a disk with sectors of 4096 bytes and one partition.
func gpt4096(t testing.TB) []byte {
	t.Helper()
	const unit = 4096
	disk := make([]byte, 8*mib)
	disk[446+4], disk[446+8], disk[446+12] = 0xee, 1, 0xff
	copy(disk[mbrMark:], "\x55\xaa")
	le := binary.LittleEndian
	entries := disk[2*unit:][:128*128]
	copy(entries, []byte{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15})
	le.PutUint64(entries[32:], mib/unit)
	le.PutUint64(entries[40:], 2*mib/unit-1)
	h := disk[unit:][:92]
	copy(h, "EFI PART")
	le.PutUint32(h[12:], 92)
	le.PutUint64(h[24:], 1)
	le.PutUint64(h[72:], 2)
	le.PutUint32(h[80:], 128)
	le.PutUint32(h[84:], 128)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	return disk
}

// reseal makes the checksums of the primary GPT right again and removes the
// backup, so that nothing but the lie is wrong.
func reseal(disk []byte) {
	le := binary.LittleEndian
	h := disk[512:][:92]
	le.PutUint32(h[88:], crc32.ChecksumIEEE(disk[1024:][:128*128]))
	clear(h[16:20])
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	clear(disk[len(disk)-512:])
}

func TestCorrupt(t *testing.T) {
	gpt, mbr, extended := table(t, gptScript), table(t, mbrScript), table(t, extendedScript)
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		disk   []byte
		change func(p []byte)
		text   string
	}{
		"no GPT at all":       {gpt, func(p []byte) { clear(p[512:1024]); clear(p[len(p)-512:]) }, "no GPT header"},
		"header checksum":     {gpt, func(p []byte) { p[512+60]++; clear(p[len(p)-512:]) }, "checksum of its GPT header"},
		"entries checksum":    {gpt, func(p []byte) { p[1024]++; clear(p[len(p)-512:]) }, "checksum of its GPT entries"},
		"header elsewhere":    {gpt, func(p []byte) { p[512+24] = 9; reseal(p) }, "another place"},
		"header length":       {gpt, func(p []byte) { le.PutUint32(p[512+12:], 1<<30); clear(p[len(p)-512:]) }, "no GPT header"},
		"countless entries":   {gpt, func(p []byte) { le.PutUint32(p[512+80:], 1<<31); reseal(p) }, "entries of"},
		"entries of no size":  {gpt, func(p []byte) { le.PutUint32(p[512+84:], 0); reseal(p) }, "entries of 0 bytes"},
		"entries outside":     {gpt, func(p []byte) { le.PutUint64(p[512+72:], 1<<63); reseal(p) }, "outside of the disk"},
		"partition backwards": {gpt, func(p []byte) { le.PutUint64(p[1024+40:], 1); reseal(p) }, "reaches from sector"},
		"partition beyond":    {gpt, func(p []byte) { le.PutUint64(p[1024+256+40:], 1<<40); reseal(p) }, "of a disk of"},
		"partition endless":   {gpt, func(p []byte) { le.PutUint64(p[1024+256+40:], 1<<63); reseal(p) }, "reaches from sector"},
		"partitions overlap":  {gpt, func(p []byte) { le.PutUint64(p[1024+40:], 10000); reseal(p) }, "1 and 2 overlap"},
		"MBR beyond":          {mbr, func(p []byte) { le.PutUint32(p[446+16+12:], 1<<31) }, "of a disk of"},
		"MBR overlap":         {mbr, func(p []byte) { le.PutUint32(p[446+12:], 1<<14) }, "1 and 2 overlap"},
		"chain at itself":     {extended, func(p []byte) { le.PutUint32(p[4*mib+446+16+8:], 0) }, "has no end"},
		"chain in a circle": {extended, func(p []byte) {
			le.PutUint32(p[39*mib+446+16+8:], 0)
			p[39*mib+446+16+4] = 5
			le.PutUint32(p[39*mib+446+16+12:], 1)
		}, "has no end"},
		"chain leaves":           {extended, func(p []byte) { le.PutUint32(p[4*mib+446+16+8:], 1<<30) }, "leaves the extended one"},
		"logical leaves":         {extended, func(p []byte) { le.PutUint32(p[4*mib+446+12:], 1<<30) }, "leaves the extended one"},
		"extended outside":       {extended, func(p []byte) { le.PutUint32(p[446+16+8:], 1<<30) }, "outside of the disk"},
		"logical over a primary": {extended, func(p []byte) { le.PutUint32(p[446+12:], 6*2048) }, "1 and 5 overlap"},
	} {
		t.Run(name, func(t *testing.T) {
			p := bytes.Clone(c.disk)
			c.change(p)
			got, err := read(p)
			if !errors.Is(err, errdefs.ErrCorrupt) || !strings.Contains(errdefs.PublicText(err, ""), c.text) {
				t.Errorf("got %+v, %v, for tenants %q", got, err, errdefs.PublicText(err, ""))
			}
		})
	}
}

// TestSourceErrors are not the tenant's fault.
func TestSourceErrors(t *testing.T) {
	for name, disk := range map[string][]byte{"GPT": table(t, gptScript), "MBR": table(t, extendedScript)} {
		for _, from := range []int64{0, 512, 1024} {
			_, err := partition.Read(failing{bytes.NewReader(disk), from}, int64(len(disk)))
			if !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, errdefs.ErrCorrupt) {
				t.Errorf("%s broken from %d: %v", name, from, err)
			}
		}
	}
}

// failing fails behind an offset.
type failing struct {
	*bytes.Reader
	from int64
}

// ReadAt implements io.ReaderAt.
func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, fmt.Errorf("read: %w", os.ErrDeadlineExceeded)
	}
	return f.Reader.ReadAt(p, off)
}

// fuzz reads a disk whose first bytes are data, after fix, and whose size is any.
func fuzz(f *testing.F, fix func(disk []byte)) {
	f.Fuzz(func(t *testing.T, data []byte, size uint32) {
		disk := append(bytes.Clone(data), make([]byte, size%(4*mib))...)
		fix(disk)
		table, err := read(disk)
		if err != nil {
			return
		}
		var end int64
		for _, p := range table.Partitions {
			if p.Start < end || p.Size <= 0 || p.Start+p.Size > int64(len(disk)) {
				t.Fatalf("%+v", table)
			}
			end = p.Start + p.Size
		}
	})
}

func FuzzGPT(f *testing.F) {
	f.Add(table(f, gptScript)[:34*512], uint32(3*mib))
	f.Add(gpt4096(f)[:6*4096], uint32(3*mib))
	le := binary.LittleEndian
	fuzz(f, func(disk []byte) {
		for _, unit := range []int{512, 4096} { // make the checksums right
			if len(disk) < 2*unit || string(disk[unit:unit+8]) != "EFI PART" {
				continue
			}
			h := disk[unit : 2*unit]
			at, n := le.Uint64(h[72:]), uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:]))
			if at < uint64(len(disk)/unit) && n <= uint64(len(disk))-at*uint64(unit) {
				le.PutUint32(h[88:], crc32.ChecksumIEEE(disk[at*uint64(unit):][:n]))
			}
			clear(h[16:20])
			if length := le.Uint32(h[12:]); int64(length) <= int64(unit) {
				le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:length]))
			}
		}
	})
}

func FuzzMBR(f *testing.F) {
	disk := table(f, "label: dos\n1: start=2, size=2, type=83\n2: start=8, size=40, type=5\n5: start=9, size=2, type=83\n6: start=15, size=4, type=8e\n")
	f.Add(disk[:64*512], uint32(0))
	fuzz(f, func([]byte) {})
}
