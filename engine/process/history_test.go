package process

import "testing"

func TestHistoryAsksNothing(t *testing.T) {
	const asks = "\x1b[c\x1b[>0c\x1b[6n\x1b[?6n\x1bZ\x05\x1b[18t\x1b[?25$p\x1b]10;?\x07\x1b]4;1;?\x1b\\\x1bP+q544e\x1b\\"
	if got := string(terminalLines([]byte("a" + asks + "b\x1b[1;31mc\x1b]0;why?\x07\r\n\nd\x1b[8;3;4t"))); got != "ab\x1b[1;31mc\x1b]0;why?\x07\r\n\r\nd\x1b[8;3;4t" {
		t.Errorf("%q", got)
	}
}
