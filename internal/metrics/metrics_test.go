package metrics_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gantry-project/gantry/internal/metrics"
	"github.com/gantry-project/gantry/internal/metrics/metricstest"
)

func TestText(t *testing.T) {
	var r metrics.Registry
	plain := r.Counter("a_total", "Help with \\ and\nanother line.")
	labelled := r.Counter("b_total", "With labels.", "one", "two")
	h := r.Histogram("c_seconds", "Durations.", []float64{0.1, 1}, "method")
	r.Gauge("d", "Read.", []string{"state"}, func(_ context.Context, set metrics.Set) error {
		set(1, "up")
		set(1, "up")
		set(0.5, "down")
		return nil
	})
	r.Gauge("e", "Broken.", nil, func(context.Context, metrics.Set) error { return errors.New("no") })
	plain.Add(2)
	labelled.Add(1, "x\"y\\z\n", "")
	for _, v := range []float64{0.05, 0.1, 0.5, 7} {
		h.Observe(v, "stop")
	}
	(*metrics.Counter)(nil).Add(1, "x")
	(*metrics.Histogram)(nil).Observe(1, "x")
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	want := `# HELP a_total Help with \\ and\nanother line.
# TYPE a_total counter
a_total 2
# HELP b_total With labels.
# TYPE b_total counter
b_total{one="x\"y\\z\n",two=""} 1
# HELP c_seconds Durations.
# TYPE c_seconds histogram
c_seconds_bucket{method="stop",le="0.1"} 2
c_seconds_bucket{method="stop",le="1"} 3
c_seconds_bucket{method="stop",le="+Inf"} 4
c_seconds_sum{method="stop"} 7.65
c_seconds_count{method="stop"} 4
# HELP d Read.
# TYPE d gauge
d{state="down"} 0.5
d{state="up"} 2
# HELP e Broken.
# TYPE e gauge
`
	if got := w.Body.String(); got != want || w.Header().Get("Content-Type") != metrics.ContentType {
		t.Errorf("%q\n%s", w.Header().Get("Content-Type"), got)
	}
	if _, err := metricstest.Parse(w.Body.String()); err != nil {
		t.Error(err)
	}
	w = httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/metrics", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

// TestTheParserIsStrict: it would see what is wrong.
func TestTheParserIsStrict(t *testing.T) {
	const head = "# HELP a x\n# TYPE a counter\n"
	const hist = "# HELP a x\n# TYPE a histogram\n"
	for name, bad := range map[string]string{
		"no end": head + "a 1", "no family": "a 1\n", "no type": "# HELP a x\na 1\n", "another family": head + "b 1\n",
		"twice": head + "a 1\na 1\n", "family twice": head + head, "negative": head + "a -1\n", "no number": head + "a x\n",
		"bad label": head + "a{b=c} 1\n", "raw quote": head + "a{b=\"c\"d\"} 1\n", "empty line": head + "\n",
		"buckets fall":  hist + "a_bucket{le=\"1\"} 2\na_bucket{le=\"2\"} 1\na_bucket{le=\"+Inf\"} 2\n",
		"no last":       hist + "a_bucket{le=\"1\"} 2\n",
		"another count": hist + "a_bucket{le=\"+Inf\"} 2\na_sum 1\na_count 3\n",
		"stray":         hist + "a 1\n",
	} {
		if _, err := metricstest.Parse(bad); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := metricstest.Parse(head); err != nil {
		t.Error(err)
	}
}
