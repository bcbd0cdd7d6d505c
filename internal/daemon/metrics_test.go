package daemon

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/internal/metrics/metricstest"
)

func TestMetersCount(t *testing.T) {
	m := newMeters("v")
	m.observe("stop_instance", "ok", 70*time.Millisecond)
	m.request("stop_instance", nil)
	m.request("pause_instance", errors.New("no"))
	m.image(true)
	m.image(false)
	var text strings.Builder
	if err := m.registry.Write(t.Context(), &text); err != nil {
		t.Fatal(err)
	}
	families, err := metricstest.Parse(text.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	for name, want := range map[string]string{
		"gantry_operation_duration_seconds": `_bucket{method="stop_instance",outcome="ok",le="0.1"}`,
		"gantry_rpc_received_total":         `{method="stop_instance"}`,
		"gantry_rpc_failed_total":           `{method="pause_instance"}`,
		"gantry_image_requests_total":       `{result="hit"}`,
	} {
		if families[name].Samples[want] != 1 {
			t.Errorf("%s: %v", name, families[name].Samples)
		}
	}
	if _, err := m.serve(t.Context(), "nowhere", nil, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "metrics_listen") {
		t.Errorf("an address that is none: %v", err)
	}
}

// TestMonitoringIsDocumented: document and dashboard know the metrics that there
// are, and no others.
func TestMonitoringIsDocumented(t *testing.T) {
	source, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`"(gantry_[a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		names[m[1]] = true
	}
	for _, file := range []string{"../../docs/monitoring.md", "../../docs/grafana/gantry.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, ".json") && !json.Valid(text) {
			t.Errorf("%s is no JSON", file)
		}
		for _, used := range regexp.MustCompile(`gantry_[a-z_]+`).FindAllString(string(text), -1) {
			base := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(used, "")
			if !names[used] && !names[base] {
				t.Errorf("%s speaks of %s", file, used)
			}
		}
		for name := range names {
			if strings.HasSuffix(file, ".md") && !strings.Contains(string(text), name) {
				t.Errorf("%s does not speak of %s", file, name)
			}
		}
	}
}
