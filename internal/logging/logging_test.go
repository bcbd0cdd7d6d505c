package logging

import (
	"bytes"
	"strings"
	"testing"
)

func TestTheLevelOfAllLoggersChanges(t *testing.T) {
	var out bytes.Buffer
	var level Threshold
	log := NewAdjustable(&out, &level)
	child := log.With().Str(Step, "x").Logger()
	say := func(what string) {
		child.Debug().Msg(what + " debug")
		child.Info().Msg(what + " info")
	}
	say("first")
	level.Set(true)
	say("second")
	level.Set(false)
	say("third")
	for want, there := range map[string]bool{
		"first info": true, "first debug": false, "second debug": true, "second info": true, "third debug": false, "third info": true,
	} {
		if strings.Contains(out.String(), want) != there {
			t.Errorf("%q logged: %t", want, !there)
		}
	}
}
