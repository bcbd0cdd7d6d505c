package checkpoint

import (
	"encoding/binary"
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// The messages of criu's socket are protocol buffers (protobuf.dev, Encoding).
// Few fields are in use, so they are written by hand. Numbers of fields and
// values: criu's images/rpc.proto, criu_req, criu_opts, criu_resp, criu_notify.
const (
	reqType, reqOpts, reqNotifySuccess = 1, 2, 3

	respType, respSuccess, respRestore, respNotify, respText = 1, 2, 4, 5, 9

	restorePid              = 1
	notifyScript, notifyPid = 1, 2

	typeDump, typeRestore, typeNotify = 1, 2, 6

	optImagesDir    = 1 // a descriptor of the process that made the socket
	optPid          = 2
	optLeaveRunning = 3
	optFileLocks    = 6
	optLogLevel     = 9
	optLogFile      = 10
	optNotify       = 12
	optRoot         = 13
	optLinkRemap    = 18
	optCgroups      = 34
	optExternal     = 37
	optEmptyNS      = 38
	optOrphanPTY    = 50 // hands over the masters of terminals whose holder is no part of the tree
	optNetworkLock  = 64

	cgroupsIgnore = 0 // IGNORE
	lockNothing   = 3 // SKIP
)

const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// message is a protocol buffer that is being written.
type message []byte

func (m message) number(field int, v uint64) message {
	m = binary.AppendUvarint(m, uint64(field)<<3|wireVarint)
	return binary.AppendUvarint(m, v)
}

func (m message) flag(field int, v bool) message {
	if !v {
		return m
	}
	return m.number(field, 1)
}

func (m message) text(field int, v string) message {
	m = binary.AppendUvarint(m, uint64(field)<<3|wireBytes)
	m = binary.AppendUvarint(m, uint64(len(v)))
	return append(m, v...)
}

// answer is what criu says: the result, or (typ typeNotify) where it is.
type answer struct {
	typ     int
	success bool
	// script names the point of a notification, pid the first process then and
	// in the result of a restore.
	script string
	pid    int
	text   string
}

// parseAnswer reads a criu_resp. Fields that are not known are passed over;
// anything that is no protocol buffer is errdefs.ErrCorrupt.
func parseAnswer(data []byte) (a answer, err error) {
	err = fields(data, func(field int, v uint64, inner []byte) error {
		switch field {
		case respType:
			a.typ = int(int32(v))
		case respSuccess:
			a.success = v != 0
		case respText:
			a.text = string(inner)
		case respRestore:
			return fields(inner, func(field int, v uint64, _ []byte) error {
				if field == restorePid {
					a.pid = int(int32(v))
				}
				return nil
			})
		case respNotify:
			return fields(inner, func(field int, v uint64, inner []byte) error {
				switch field {
				case notifyScript:
					a.script = string(inner)
				case notifyPid:
					a.pid = int(int32(v))
				}
				return nil
			})
		}
		return nil
	})
	return a, err
}

// fields calls visit with each field: v of a number, inner of bytes.
func fields(data []byte, visit func(field int, v uint64, inner []byte) error) error {
	bad := fmt.Errorf("answer of criu: %w", errdefs.ErrCorrupt)
	for len(data) > 0 {
		key, n := binary.Uvarint(data)
		if n <= 0 || key>>3 == 0 || key>>3 > 1<<29 {
			return bad
		}
		data = data[n:]
		var v uint64
		var inner []byte
		skip := 0
		switch key & 7 {
		case wireVarint:
			if v, n = binary.Uvarint(data); n <= 0 {
				return bad
			}
			skip = n
		case wireBytes:
			size, n := binary.Uvarint(data)
			if n <= 0 || size > uint64(len(data)-n) {
				return bad
			}
			inner, skip = data[n:n+int(size)], n+int(size)
		case wireFixed64:
			skip = 8
		case wireFixed32:
			skip = 4
		default:
			return bad
		}
		if skip > len(data) {
			return bad
		}
		if err := visit(int(key>>3), v, inner); err != nil {
			return err
		}
		data = data[skip:]
	}
	return nil
}
