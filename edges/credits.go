package edges

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/go-faster/jx"
)

// maxCreditActions bounds the actions that are kept of one consumption.
const maxCreditActions = 1000

// Consumption is what the workspace has used of its credits in the current
// period, from GET /v1/workspaces/consumption.
type Consumption struct {
	// CreditsLeft, CreditsUsed and CreditsMax are numbers of credits; one that
	// was null or missing is NaN, so that it is not taken for none left.
	CreditsLeft, CreditsUsed, CreditsMax float64
	// PeriodStart and PeriodEnd bound the current month of the contract; zero
	// if the API does not tell.
	PeriodStart, PeriodEnd time.Time
	// Actions is what each action has used, in the API's order, the first
	// 1,000 of them.
	Actions []ActionCredits
	// Date is the server's clock when it answered, in whole seconds; zero if
	// it did not tell.
	Date time.Time
	// Defect says why the answer could not be understood; it must not be used
	// then. Empty for a good one. A row of Actions that is not understood is
	// left out, and is DefectBadField.
	Defect Defect
}

// ActionCredits is what one action has used.
type ActionCredits struct {
	// Action is the action's name, such as "linkedin-extract-people".
	Action string
	// Used is a number of credits in the current period.
	Used float64
}

// Workspace is one workspace of GET /v1/workspaces. A field that was null or
// missing has its zero value.
type Workspace struct {
	// UID identifies the workspace.
	UID string
	// Name is what people call it.
	Name string
	// PlanName is the plan, on which the rate limit depends.
	PlanName string
	// CreditsLeft, CreditsUsed and CreditsMax are as in Consumption, NaN where
	// the API does not tell.
	CreditsLeft, CreditsUsed, CreditsMax float64
	// Defect says why the row could not be understood; what is known of it
	// besides must not be used. Empty for a good row.
	Defect Defect
}

// GetConsumption reads what has been used of the workspace's credits, GET
// /workspaces/consumption. An object that cannot be understood is no error: see
// Consumption.Defect.
func (c *Client) GetConsumption(ctx context.Context) (Consumption, error) {
	var consumption Consumption
	err := c.do(ctx, call{
		endpoint: endpointConsumption,
		target:   c.target("workspaces", "consumption"),
		read: func(d *decoder, answer *http.Response) error {
			nan := math.NaN()
			consumption = Consumption{CreditsLeft: nan, CreditsUsed: nan, CreditsMax: nan, Date: serverTime(answer.Header)}
			return d.object(answer.Body, c.maxBytes, func() error { return d.consumption(&consumption) })
		},
	})
	if err != nil {
		return Consumption{}, fmt.Errorf("get consumption: %w", err)
	}
	return consumption, nil
}

// ListWorkspaces reads the workspaces that the key belongs to, GET /workspaces:
// one, as the API documents it. A row that cannot be understood is no error:
// see Workspace.Defect.
func (c *Client) ListWorkspaces(ctx context.Context) ([]Workspace, error) {
	var list []Workspace
	err := c.do(ctx, call{
		endpoint: endpointWorkspaces,
		target:   c.target("workspaces"),
		read: func(d *decoder, answer *http.Response) (err error) {
			list, err = d.workspaces(answer, c.maxBytes)
			return err
		},
	})
	if err != nil {
		return nil, fmt.Errorf("list workspaces: %w", err)
	}
	return list, nil
}

func (d *decoder) consumption(c *Consumption) error {
	defect, err := d.row(func(field string) (kind int, ok bool, err error) {
		switch field {
		case "credits_left":
			kind = fieldKept
			c.CreditsLeft, ok, err = d.amount()
		case "credits_used":
			kind = fieldKept
			c.CreditsUsed, ok, err = d.amount()
		case "credits_max":
			kind = fieldKept
			c.CreditsMax, ok, err = d.amount()
		case "current_month_start":
			kind = fieldTime
			c.PeriodStart, ok, err = d.day()
		case "current_month_end":
			kind = fieldTime
			c.PeriodEnd, ok, err = d.day()
		case "consumptions":
			kind = fieldKept
			c.Actions, ok, err = d.actionCredits()
		default:
			return d.skip()
		}
		return kind, ok, err
	})
	c.Defect = defect
	return err
}

// actionCredits reads what each action has used. It is not ok if a row of it
// was not understood.
func (d *decoder) actionCredits() (actions []ActionCredits, ok bool, err error) {
	switch d.json.Next() {
	case jx.Array:
	case jx.Null:
		return nil, true, d.json.Null()
	default:
		return nil, false, d.json.Skip()
	}
	ok = true
	err = d.json.Arr(func(*jx.Decoder) error {
		row := ActionCredits{Used: math.NaN()}
		defect, err := d.row(func(field string) (kind int, ok bool, err error) {
			switch field {
			case "action_slug":
				kind = fieldKept
				row.Action, ok, err = d.word()
			case "credits_used":
				kind = fieldKept
				row.Used, ok, err = d.amount()
			default:
				return d.skip()
			}
			return kind, ok, err
		})
		switch {
		case err != nil:
			return err
		case defect != "" || math.IsNaN(row.Used):
			ok = false
		case len(actions) < maxCreditActions:
			actions = append(actions, row)
		}
		return nil
	})
	return actions, ok, err
}

// workspaces reads a list of workspaces, or one that is not in a list.
func (d *decoder) workspaces(answer *http.Response, maxBytes int64) ([]Workspace, error) {
	if err := d.start(answer.Body, maxBytes); err != nil {
		return nil, err
	}
	var list []Workspace
	var err error
	switch d.json.Next() {
	case jx.Array:
		list, err = readArray(d, d.workspace)
	case jx.Object:
		list = make([]Workspace, 1)
		err = d.workspace(&list[0])
	default:
		if err = d.json.Skip(); err == nil {
			err = errors.New("neither a list nor an object")
		}
	}
	if err != nil {
		return nil, d.failure(err)
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return list, nil
}

func (d *decoder) workspace(w *Workspace) error {
	w.CreditsLeft, w.CreditsUsed, w.CreditsMax = math.NaN(), math.NaN(), math.NaN()
	defect, err := d.row(func(field string) (kind int, ok bool, err error) {
		switch field {
		case "uid":
			kind = fieldUID
			w.UID, ok, err = d.uid()
		case "name":
			w.Name, ok, err = d.name()
		case "plan_name":
			kind = fieldKept
			w.PlanName, ok, err = d.word()
		case "credits_left":
			w.CreditsLeft, ok, err = d.amount()
		case "credits_used":
			w.CreditsUsed, ok, err = d.amount()
		case "credits_max":
			w.CreditsMax, ok, err = d.amount()
		default:
			return d.skip()
		}
		return kind, ok, err
	})
	w.Defect = defect
	if w.UID == "" && defect != DefectNotObject {
		w.Defect = DefectNoUID
	}
	return err
}
