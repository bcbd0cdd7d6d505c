package cgroup

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseThrottleIO reads blkio.throttle.io_service_bytes_recursive or
// io_serviced_recursive of v1 ("8:0 Read 4096") and adds to the devices.
func parseThrottleIO(text string, add func(d *DeviceIO, op string, n int64), to []DeviceIO) []DeviceIO {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		n := number(fields[2])
		if major, minor, ok := parseDevice(fields[0]); ok && n >= 0 {
			to = device(to, major, minor)
			add(find(to, major, minor), fields[1], n)
		}
	}
	return to
}

// parseIOStat reads io.stat of v2 ("8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...").
func parseIOStat(text string) []DeviceIO {
	var out []DeviceIO
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		major, minor, ok := parseDevice(fields[0])
		if !ok {
			continue
		}
		out = device(out, major, minor)
		d := find(out, major, minor)
		for _, field := range fields[1:] {
			key, value, _ := strings.Cut(field, "=")
			n := max(number(value), 0)
			switch key {
			case "rbytes":
				d.ReadBytes = n
			case "wbytes":
				d.WriteBytes = n
			case "rios":
				d.ReadOps = n
			case "wios":
				d.WriteOps = n
			}
		}
	}
	return out
}

func parseDevice(s string) (major, minor int64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	major, minor = number(a), number(b)
	return major, minor, ok && major >= 0 && minor >= 0
}

// device makes sure that a device is in the sorted list.
func device(list []DeviceIO, major, minor int64) []DeviceIO {
	i, found := slices.BinarySearchFunc(list, DeviceIO{Major: major, Minor: minor}, compareDevice)
	if found {
		return list
	}
	return slices.Insert(list, i, DeviceIO{Major: major, Minor: minor})
}

func find(list []DeviceIO, major, minor int64) *DeviceIO {
	i, _ := slices.BinarySearchFunc(list, DeviceIO{Major: major, Minor: minor}, compareDevice)
	return &list[i]
}

func compareDevice(a, b DeviceIO) int {
	if a.Major != b.Major {
		return int(a.Major - b.Major)
	}
	return int(a.Minor - b.Minor)
}

// parsePressure reads a file like cpu.pressure ("some avg10=0.00 avg60=0.00
// avg300=0.00 total=316801", total in microseconds).
func parsePressure(text string) PressureKind {
	var out PressureKind
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		var p PressureTime
		for _, field := range fields[1:] {
			key, value, _ := strings.Cut(field, "=")
			f, err := strconv.ParseFloat(value, 64)
			if err != nil || f != f || f < 0 {
				continue
			}
			switch key {
			case "avg10":
				p.Avg10 = f
			case "avg60":
				p.Avg60 = f
			case "avg300":
				p.Avg300 = f
			case "total":
				p.Total = time.Duration(max(number(value), 0)) * time.Microsecond
			}
		}
		switch fields[0] {
		case "some":
			out.Some = p
		case "full":
			out.Full = p
		}
	}
	return out
}
