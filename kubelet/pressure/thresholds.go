package pressure

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubernetes/pkg/kubelet/eviction/api"
)

// ParseThresholds reads evictionHard, evictionSoft, evictionSoftGracePeriod and
// evictionMinimumReclaim of a KubeletConfiguration. It returns all errors at once.
func ParseThresholds(hard, soft, gracePeriods, minReclaims map[string]string) ([]api.Threshold, error) {
	var list []api.Threshold
	var errs []error
	for kind, field := range []struct {
		name   string
		values map[string]string
	}{{"evictionHard", hard}, {"evictionSoft", soft}} {
		for _, name := range slices.Sorted(maps.Keys(field.values)) {
			t, err := parseThreshold(name, field.values[name], minReclaims[name])
			if err == nil && kind == 1 {
				if t.GracePeriod, err = time.ParseDuration(gracePeriods[name]); err == nil && t.GracePeriod <= 0 {
					err = errors.New("a soft threshold needs a grace period")
				}
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("reading %s of %s: %w", name, field.name, err))
			} else if percent := t.Value.Percentage; percent != 1 && (percent != 0 || t.Value.Quantity != nil) {
				list = append(list, t) // 0 % and 100 % switch a signal off
			}
		}
	}
	return list, errors.Join(errs...)
}

func parseThreshold(signal, value, minReclaim string) (api.Threshold, error) {
	t := api.Threshold{Signal: api.Signal(signal), Operator: api.OpLessThan}
	if _, known := api.OpForSignal[t.Signal]; !known {
		return t, errors.New("there is no such signal")
	}
	var err error
	if t.Value, err = parseValue(value); err != nil || minReclaim == "" {
		return t, err
	}
	least, err := parseValue(minReclaim)
	t.MinReclaim = &least
	return t, err
}

func parseValue(text string) (api.ThresholdValue, error) {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		percent, err := strconv.ParseFloat(number, 32)
		if err == nil && (percent < 0 || percent > 100) {
			err = fmt.Errorf("%s is not between 0%% and 100%%", text)
		}
		return api.ThresholdValue{Percentage: float32(percent) / 100}, err
	}
	q, err := resource.ParseQuantity(text)
	if err == nil && q.Sign() <= 0 {
		err = fmt.Errorf("%s is not positive", text)
	}
	return api.ThresholdValue{Quantity: &q}, err
}

// limit is the amount below which a threshold is met, with its minimum reclaim if wanted.
func limit(t api.Threshold, capacity int64, withReclaim bool) int64 {
	total := resource.NewQuantity(capacity, resource.BinarySI)
	amount := api.GetThresholdQuantity(t.Value, total).Value()
	if withReclaim && t.MinReclaim != nil {
		amount += api.GetThresholdQuantity(*t.MinReclaim, total).Value()
	}
	return amount
}
