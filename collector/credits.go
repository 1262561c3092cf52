package collector

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.etcd.io/bbolt"

	"github.com/edges-exporter/edges_exporter/edges"
)

// creditsCollector reads what the workspace has used of its credits.
type creditsCollector struct {
	client *edges.Client
	every  time.Duration
}

// credits is a consumption as it is stored and shown. What the API did not tell
// is nil or 0.
type credits struct {
	Left, Used, Limit *float64
	// Start and End of the period are Unix nanoseconds.
	Start, End int64
	// Actions is what each action has used, by its number.
	Actions map[uint16]float64
}

var errNoCredits = errors.New("the API's answer about credits is not understood")

func (*creditsCollector) name() string { return collectorCredits }

func (k *creditsCollector) pace() time.Duration { return k.every }

func (k *creditsCollector) poll(ctx context.Context, d *desk) (more bool, err error) {
	answer, err := k.client.GetConsumption(ctx)
	if err != nil {
		return false, err
	}
	if answer.Defect != "" {
		return false, fmt.Errorf("%w: %s", errNoCredits, answer.Defect)
	}
	if math.IsNaN(answer.CreditsLeft) && math.IsNaN(answer.CreditsUsed) && math.IsNaN(answer.CreditsMax) {
		return false, fmt.Errorf("%w: it names none", errNoCredits)
	}
	return false, d.commit(func(b *booking) error { return b.credits(&answer) })
}

// credits books a consumption.
func (b *booking) credits(answer *edges.Consumption) error {
	known := func(v float64) *float64 {
		if math.IsNaN(v) {
			return nil
		}
		return &v
	}
	c := &credits{
		Left: known(answer.CreditsLeft), Used: known(answer.CreditsUsed), Limit: known(answer.CreditsMax),
		Start: nanos(answer.PeriodStart), End: nanos(answer.PeriodEnd), Actions: map[uint16]float64{},
	}
	for _, a := range answer.Actions {
		if !math.IsNaN(a.Used) {
			c.Actions[b.dicts[labelAction].id(a.Action)] += a.Used
		}
	}
	stored, err := sealJSON(c)
	if err != nil {
		return fmt.Errorf("credits: %w", err)
	}
	b.after = append(b.after, func() { b.ledger.credits = c })
	return b.tx.Bucket(bucketMeta).Put(metaCredits, stored)
}

func loadCredits(tx *bbolt.Tx) (*credits, error) {
	stored := tx.Bucket(bucketMeta).Get(metaCredits)
	if stored == nil {
		return nil, nil //nolint:nilnil // none was read yet, which is no error
	}
	c := &credits{}
	return c, unsealJSON(stored, c)
}

func (r *renderer) credits(f *family) []*dto.Metric {
	c := r.ledger.credits
	if c == nil {
		return nil
	}
	amount := func(v *float64) []*dto.Metric {
		if v == nil {
			return nil
		}
		return r.gauge(*v)
	}
	at := func(ns int64) []*dto.Metric {
		if ns == 0 {
			return nil
		}
		return r.gauge(unixSeconds(ns))
	}
	switch f.id {
	case famCreditsLeft:
		return amount(c.Left)
	case famCreditsUsed:
		return amount(c.Used)
	case famCreditsLimit:
		return amount(c.Limit)
	case famCreditsStart:
		return at(c.Start)
	case famCreditsEnd:
		return at(c.End)
	}
	ids := make([]uint16, 0, len(c.Actions))
	for id := range c.Actions {
		if int(id) < len(r.ledger.dicts[labelAction].names) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var out []*dto.Metric
	for _, id := range ids {
		out = append(out, r.labelled(f, c.Actions[id], r.ledger.dicts[labelAction].name(id)))
	}
	return out
}
