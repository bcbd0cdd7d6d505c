package identity

import "testing"

// BenchmarkCaller is what each request to any service pays for its token.
func BenchmarkCaller(b *testing.B) {
	c := newCloud(b)
	token := c.demo()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Caller(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkToken is a login whose password was used before.
func BenchmarkToken(b *testing.B) {
	c := newCloud(b)
	for b.Loop() {
		c.demo()
	}
}

// BenchmarkBootstrap is a start of a cloud that has been started before.
func BenchmarkBootstrap(b *testing.B) {
	c := newCloud(b)
	for b.Loop() {
		if _, err := c.Bootstrap(b.Context(), request()); err != nil {
			b.Fatal(err)
		}
	}
}
