package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/snapshot"
)

const (
	// hypervisorType is the word that Nova's enumeration has for containers of
	// application images; an image with hypervisor_type=docker lands here.
	hypervisorType    = "docker"
	hypervisorVersion = 1000
	vmMode            = "exe"

	mib = 1 << 20
	gib = 1 << 30
)

// architectures maps Go's names to Nova's (nova/objects/fields.py, Architecture).
var architectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// Resources reports the totals of this host.
func (d *Driver) Resources(ctx context.Context) (driver.Resources, error) {
	res := driver.Resources{
		Node:              d.opts.Node,
		VCPUs:             int64(runtime.NumCPU()),
		HypervisorType:    hypervisorType,
		HypervisorVersion: hypervisorVersion,
		Supported:         supported(),
	}
	var err error
	if res.Cells, err = cellsOf("/", d.opts.Dedicated, d.opts.Shared); err != nil {
		return res, err
	}
	if res.Cells != nil {
		res.VCPUs = int64(len(d.opts.Dedicated) + len(d.opts.Shared))
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return res, fmt.Errorf("read host memory: %w", err)
	}
	res.MemoryMB = int64(uint64(info.Totalram) * uint64(info.Unit) / mib)
	res.Uptime = time.Duration(info.Uptime) * time.Second
	for i := range res.LoadAverage {
		res.LoadAverage[i] = float64(info.Loads[i]) / 65536
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(d.opts.StorePath, &fs); err != nil {
		return res, fmt.Errorf("read store size: %w", err)
	}
	res.DiskGB = int64(fs.Blocks) * fs.Bsize / gib
	res.DiskFreeGB = int64(fs.Bavail) * fs.Bsize / gib
	cpu, features, err := cpuInfo()
	if err != nil {
		return res, err
	}
	res.CPUInfo = cpu
	has, own := cpuTraits(runtime.GOARCH, features)
	res.Traits, res.OwnTraits = append(hostTraits(), has...), own
	return res, nil
}

// supported lists what can run here. The ImagePropertiesFilter compares image
// properties with it, so containers answer to every container word.
func supported() []driver.HVSpec {
	arch := architectures[runtime.GOARCH]
	specs := []driver.HVSpec{{Arch: arch, HVType: "docker", VMMode: vmMode}, {Arch: arch, HVType: "lxc", VMMode: vmMode}}
	if arch == "x86_64" {
		specs = append(specs, driver.HVSpec{Arch: "i686", HVType: "docker", VMMode: vmMode})
	}
	return specs
}

// cpuInfo describes the processor as the JSON that the hypervisors API shows, and
// returns its features, as the kernel calls them.
func cpuInfo() (doc string, features []string, err error) {
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", nil, fmt.Errorf("read processor: %w", err)
	}
	info := map[string]any{
		"arch":     architectures[runtime.GOARCH],
		"topology": map[string]int{"cells": 1, "sockets": 1, "cores": runtime.NumCPU(), "threads": 1},
	}
	scan := bufio.NewScanner(bytes.NewReader(raw))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		key, value, ok := strings.Cut(scan.Text(), ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "vendor_id":
			info["vendor"] = value
		case "model name":
			info["model"] = value
		case "flags", "Features":
			features = strings.Fields(value)
			info["features"] = features
		}
	}
	out, err := json.Marshal(info)
	if err != nil {
		return "", nil, fmt.Errorf("describe processor: %w", err)
	}
	return string(out), features, nil
}

// Of a disk.
const (
	// leastDisk is for an image that fills its flavor: an instance has to write
	// a little to run, and a file system to keep its own tables.
	leastDisk = 64 * mib
	// bytesPerInode is what mke2fs has by default: as many files as an ext4 of
	// that size would hold.
	bytesPerInode = 16 << 10
)

// diskFor bounds what an instance writes: image and writings together are the
// flavor's root disk, so that a snapshot of it boots with the same flavor. A
// flavor without a size has no limit.
func diskFor(f driver.Flavor, img engine.ImageInfo) snapshot.Limit {
	if f.RootGB <= 0 {
		return snapshot.Limit{}
	}
	size := max(f.RootGB*gib-img.SizeBytes, leastDisk)
	return snapshot.Limit{Bytes: size, Inodes: size / bytesPerInode}
}

// gigabytes renders a size for a person.
func gigabytes(n int64) string { return strconv.FormatInt(n, 10) + " GB" }
