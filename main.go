// Command edges_exporter follows the runs of an Edges workspace and exposes
// exact metrics of them to Prometheus.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kingpin/v2"
	kitlog "github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	slogkit "github.com/tjhop/slog-gokit"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/edges-exporter/edges_exporter/collector"
	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/command"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

const name = "edges_exporter"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is an error of the command line or of what it names.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if info, ok := debug.ReadBuildInfo(); ok {
		fillVersion(info)
	}
	app, o := flags(stdout, stderr)
	exited := -1
	app.Terminate(func(code int) {
		if exited < 0 {
			exited = code
		}
	})
	chosen, err := app.Parse(args)
	if exited >= 0 { // --help and --version are done by now
		return exited
	}
	if err != nil {
		if culprit := refused(app, args); culprit != "" {
			err = fmt.Errorf("%s: %w", culprit, err)
		}
		err = usageError{fmt.Errorf("%w (%s --help lists the flags)", err, name)}
	} else {
		for flag, set := range o.given {
			*set = *set || app.GetFlag(flag).HasEnvarValue()
		}
		if chosen == "demo" {
			o.demoDefaults()
		}
		err = o.execute(ctx, chosen, stdout, stderr)
	}
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "%s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", "; "))
	if errors.As(err, &usageError{}) || errors.As(err, &command.UsageError{}) {
		return exitUsage
	}
	return exitFailed
}

// refused names the flag, or the environment variable, whose value was refused.
// Kingpin's error says only what is wrong with the value. It is empty where the
// error is about something else, which it then names.
func refused(app *kingpin.Application, args []string) string {
	parsed, err := app.ParseContext(args)
	if err != nil {
		return ""
	}
	for _, e := range parsed.Elements {
		if f, ok := e.Clause.(*kingpin.FlagClause); ok && e.Value != nil && f.Model().Value.Set(*e.Value) != nil {
			return "--" + f.Model().Name
		}
	}
	known := app.Model().Flags
	if parsed.SelectedCommand != nil {
		known = append(known, parsed.SelectedCommand.Model().Flags...)
	}
	for _, f := range known {
		if text := os.Getenv(f.Envar); text != "" && f.Value.Set(text) != nil {
			return f.Envar
		}
	}
	return ""
}

// options are the values of the flags.
type options struct {
	url, keyFile, workspace string
	perMinute               int
	timeout, retention      model.Duration
	interval, overlap       model.Duration
	auditInterval           model.Duration
	storage                 string
	zeroHold                model.Duration
	maxActions, problemRuns int
	native                  bool
	schedules, callbacks    bool
	credits                 bool
	listen                  []string
	webConfig, metricsPath  string
	pprof                   bool
	logLevel, logFormat     string

	simulator simulatorOptions
	healthURL string
	commands  commandOptions

	// given tells which flags were set, or their environment variables, where
	// demo has another default.
	given map[string]*bool
}

// commandOptions are of the commands that people give.
type commandOptions struct {
	runs      command.RunsOptions
	statuses  []string
	modes     []string
	schedules command.SchedulesOptions
	get       command.GetOptions
	change    command.ChangeOptions
	launch    command.LaunchOptions
	format    command.Format
}

type simulatorOptions struct {
	listen, plan, key string
	seed              uint64
	history           model.Duration
	runsPerDay        float64
	historyPerDay     float64
	late              model.Duration
	hints             bool
	troubles          []string
}

// fillVersion takes from what the Go toolchain noted what the linker was not
// told, so that a plain "go build" or "go install" knows its version too.
func fillVersion(info *debug.BuildInfo) {
	if version.Version == "" {
		version.Version = strings.Trim(info.Main.Version, "()")
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" && version.BuildDate == "" {
			version.BuildDate = s.Value
		}
	}
}

// flags describes the command line.
func flags(stdout, stderr io.Writer) (*kingpin.Application, *options) {
	o := &options{given: map[string]*bool{}}
	given := func(flag string) *bool {
		o.given[flag] = new(bool)
		return o.given[flag]
	}
	app := kingpin.New(name, "Exact Prometheus metrics of the runs of an Edges workspace.").
		UsageWriter(stdout).ErrorWriter(stderr).DefaultEnvars().Version(version.Print(name))
	app.HelpFlag.Short('h').NoEnvar()
	// A variable of this name is likely to be about something else.
	app.VersionFlag.NoEnvar()

	app.Flag("edges.url", "Base URL of the Edges API.").Default("https://api.edges.run/v1").StringVar(&o.url)
	app.Flag("edges.api-key-file", "File that holds the API key; a changed file is picked up without a restart. Without it the key comes from the environment variable EDGES_API_KEY.").StringVar(&o.keyFile)
	app.Flag("edges.workspace", "Value of the workspace label.").Default("default").StringVar(&o.workspace)
	app.Flag("edges.max-requests-per-minute", "Request budget: no more requests than this in any 60 seconds.").Default("15").IntVar(&o.perMinute)
	app.Flag("edges.timeout", "How long one request may take.").Default("30s").IsSetByUser(given("edges.timeout")).SetValue(&o.timeout)
	app.Flag("edges.retention", "Age at which runs leave the API, and so the gauges.").Default("90d").SetValue(&o.retention)
	app.Flag("poll.interval", "Time between two polls.").Default("15s").IsSetByUser(given("poll.interval")).SetValue(&o.interval)
	app.Flag("poll.overlap", "How late a run may turn up in the list after its updated_at.").Default("30s").IsSetByUser(given("poll.overlap")).SetValue(&o.overlap)
	app.Flag("poll.audit-interval", "How long a run in flight may go unconfirmed before it is read again by its uid.").Default("15m").SetValue(&o.auditInterval)
	app.Flag("storage.path", "Folder of the store. Empty: a temporary one, nothing survives.").Default("data").IsSetByUser(given("storage.path")).StringVar(&o.storage)
	app.Flag("metrics.zero-hold", "How long a new series is shown at 0, so that increase() sees its first event; at least the scrape interval.").Default("30s").IsSetByUser(given("metrics.zero-hold")).SetValue(&o.zeroHold)
	app.Flag("metrics.max-actions", "Most values of the action label; what comes beyond is \"other\".").Default("500").IntVar(&o.maxActions)
	app.Flag("metrics.problem-runs", "Most series of edges_run_problem_timestamp_seconds.").Default("20").IntVar(&o.problemRuns)
	app.Flag("metrics.native-histograms", "Add native histograms to the classic ones, for scrapes in the protobuf format.").Default("true").BoolVar(&o.native)
	app.Flag("collector.schedules", "Read the schedules too, once a minute.").Default("true").BoolVar(&o.schedules)
	app.Flag("collector.callbacks", "Follow the callbacks too, twice a minute.").Default("true").BoolVar(&o.callbacks)
	app.Flag("collector.credits", "Read the credits too, once in five minutes.").Default("true").BoolVar(&o.credits)
	app.Flag("web.listen-address", "Address to listen on; may be repeated.").Default(":10253").StringsVar(&o.listen)
	app.Flag("web.config.file", "Configuration file for TLS and basic auth, see the exporter-toolkit's documentation.").StringVar(&o.webConfig)
	app.Flag("web.telemetry-path", "Path of the metrics.").Default("/metrics").StringVar(&o.metricsPath)
	app.Flag("web.enable-pprof", "Serve profiles under /debug/pprof/.").BoolVar(&o.pprof)
	app.Flag("log.level", "Least level of what is logged.").Default("info").IsSetByUser(given("log.level")).EnumVar(&o.logLevel, "debug", "info", "warn", "error")
	app.Flag("log.format", "Format of the log.").Default("logfmt").EnumVar(&o.logFormat, "logfmt", "json")

	s := &o.simulator
	app.Flag("simulator.listen-address", "demo and simulate: address of the simulated workspace.").Default("localhost:10254").StringVar(&s.listen)
	app.Flag("simulator.api-key", "simulate: the key that the workspace takes.").Default(simulator.DefaultAPIKey).StringVar(&s.key)
	app.Flag("simulator.seed", "demo and simulate: where all that is random comes from.").Default("1").Uint64Var(&s.seed)
	app.Flag("simulator.plan", "demo and simulate: plan whose rate limit holds (trial, bronze, silver, gold, platinum, diamond, titanium, unlimited).").Default("unlimited").StringVar(&s.plan)
	app.Flag("simulator.history", "demo and simulate: how much past the workspace has.").Default("90d").SetValue(&s.history)
	app.Flag("simulator.history-runs-per-day", "demo and simulate: runs on an average day of the past.").Default(fmt.Sprint(simulator.DefaultHistoryRunsPerDay)).Float64Var(&s.historyPerDay)
	app.Flag("simulator.runs-per-day", "demo and simulate: runs on an average day from now on.").Default(fmt.Sprint(simulator.DefaultRunsPerDay)).Float64Var(&s.runsPerDay)
	app.Flag("simulator.late-commits", "demo and simulate: how late a tenth of the changes become visible.").Default("0s").SetValue(&s.late)
	app.Flag("simulator.rate-limit-hints", "demo and simulate: send Retry-After and X-RateLimit-Limit.").BoolVar(&s.hints)
	app.Flag("simulator.trouble", "demo and simulate: trouble from the start, such as failed:linkedin-extract-people:share=0.9:after=1m:for=10m; may be repeated.").StringsVar(&s.troubles)

	app.Command("serve", "Follow a workspace and serve its metrics.").Default()
	app.Command("demo", "Serve the metrics of a simulated workspace: no API key needed.")
	app.Command("simulate", "Serve the API of a simulated workspace.")
	health := app.Command("healthcheck", "Exit with 0 if an exporter answers that it is healthy; for containers.")
	health.Arg("url", "What to ask, if not the first --web.listen-address.").Envar("EDGES_EXPORTER_HEALTHCHECK_URL").StringVar(&o.healthURL)
	o.commands.flags(app)
	return app, o
}

// flags describes the commands that people give.
func (c *commandOptions) flags(app *kingpin.Application) {
	times := func(to *kingpin.CmdClause) {
		to.Flag("times", "How tables write times: relative, local or utc.").Default(command.TimesRelative).EnumVar(&c.format.Times, command.TimesRelative, command.TimesLocal, command.TimesUTC)
	}
	output := func(to *kingpin.CmdClause, forms ...string) {
		to.Flag("output", "Form of what is written: "+strings.Join(forms, ", ")+". JSON is the API's own, but the values of callback headers are taken out.").Default(command.OutputTable).EnumVar(&c.format.Output, forms...)
	}
	yes := func(to *kingpin.CmdClause, into *bool) {
		to.Flag("yes", "Do not ask.").Short('y').NoEnvar().BoolVar(into)
	}
	const budget = " It keeps to --edges.max-requests-per-minute by itself, not together with an exporter that runs."

	runs := app.Command("runs", "List, look at, resume and cancel runs.")
	list := runs.Command("list", "List runs, newest change first."+budget)
	q := &c.runs.Query
	list.Flag("status", "Only runs in this status, such as FAILED; may be repeated, like all filters.").StringsVar(&c.statuses)
	list.Flag("action", "Only runs of this action.").StringsVar(&q.ActionName)
	list.Flag("mode", "Only runs launched so: LIVE or ASYNC.").StringsVar(&c.modes)
	list.Flag("uid", "Only this run.").StringsVar(&q.UID)
	list.Flag("user-uid", "Only runs for this user.").StringsVar(&q.UserUID)
	list.Flag("workspace-uid", "Only runs of this workspace; the API ignores it.").StringsVar(&q.WorkspaceUID)
	list.Flag("flow-run-id", "Only runs of this run of a flow.").Int64ListVar(&q.FlowRunID)
	list.Flag("since", "Only runs that have changed since: 2h, 7d, 2026-11-23, \"2026-11-23 15:04\" or 2026-11-23T15:04:05Z.").SetValue(&c.runs.Since)
	list.Flag("sort", "Order: a field such as created_at, with - in front for the highest first; may be repeated. Without it -updated_at.").StringsVar(&q.Sort)
	list.Flag("limit", "Most runs to list; 0 for all.").Default("50").IntVar(&c.runs.Limit)
	output(list, command.OutputTable, command.OutputJSON, command.OutputCSV, command.OutputUID)
	times(list)

	get := runs.Command("get", "Show single runs with all that is known of them."+budget)
	get.Arg("uid", "Uid of a run.").Required().StringsVar(&c.get.UIDs)
	output(get, command.OutputTable, command.OutputJSON, command.OutputCSV)
	times(get)

	for _, does := range [][2]string{
		{"resume", "Put runs that are BLOCKED, STOPPED or FAILED back to work."},
		{"cancel", "Stop runs that have not ended, async and scheduled ones."},
	} {
		change := runs.Command(does[0], does[1]+" Asks first. No request is repeated that may have been carried out."+budget)
		change.Arg("uid", "Uid of a run.").Required().StringsVar(&c.change.UIDs)
		yes(change, &c.change.Yes)
	}

	l := &c.launch
	launch := app.Command("launch", "Launch an action. Asks first. The request is not repeated if it may have been carried out."+budget)
	launch.Arg("action", "The action, such as linkedin-extract-people.").Required().StringVar(&l.Action)
	launch.Flag("mode", "How: live answers the results, async begins a run, schedule runs later.").Required().EnumVar((*string)(&l.Mode), "live", "async", "schedule")
	launch.Flag("input", "One input, a JSON object.").StringVar(&l.Input)
	launch.Flag("inputs", "File of up to 100,000 inputs: a JSON array, JSON Lines, or CSV whose first line has the names; - for the standard input. Fields of CSV are strings, empty ones are left out.").StringVar(&l.Inputs)
	launch.Flag("callback-url", "Where the API sends the results.").StringVar(&l.CallbackURL)
	launch.Flag("parameter", "name=value for the action; may be repeated. A value that is JSON is sent as that.").StringsVar(&l.Parameters)
	launch.Flag("cron", "When a schedule runs, in five fields; in UTC without --timezone.").StringVar(&l.Cron)
	launch.Flag("at", "When a schedule runs once, such as \"2026-11-23 15:04\"; in local time without --timezone.").StringVar(&l.At)
	launch.Flag("timezone", "Time zone of --cron and --at, such as Europe/Paris.").StringVar(&l.Timezone)
	launch.Flag("wait", "Wait until an async run has ended; exit with 1 if not well.").BoolVar(&l.Wait)
	output(launch, command.OutputTable, command.OutputJSON)
	yes(launch, &l.Yes)

	s := &c.schedules.Query
	schedules := app.Command("schedules", "List schedules.").Command("list", "List schedules."+budget)
	schedules.Flag("status", "Only schedules in this status, such as ACTIVE; may be repeated, like all filters.").StringsVar(&c.statuses)
	schedules.Flag("uid", "Only this schedule.").StringsVar(&s.UID)
	schedules.Flag("user-uid", "Only schedules of this user.").StringsVar(&s.UserUID)
	schedules.Flag("sort", "Order, as of runs.").StringsVar(&s.Sort)
	schedules.Flag("limit", "Most schedules to list; 0 for all.").Default("0").IntVar(&c.schedules.Limit)
	output(schedules, command.OutputTable, command.OutputJSON, command.OutputCSV, command.OutputUID)
	times(schedules)

	app.Command("check", "Say whether the exporter can work as it is configured: the key, the workspace and its limits, the budget, the store, the disk, the clock.")
}

// newLogger makes the one logger of the process: go-kit/log writes the lines,
// the rest of the code speaks slog.
func newLogger(w io.Writer, level, format string) *slog.Logger {
	out := kitlog.NewLogfmtLogger(kitlog.NewSyncWriter(w))
	if format == "json" {
		out = kitlog.NewJSONLogger(kitlog.NewSyncWriter(w))
	}
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		least = slog.LevelInfo
	}
	return slog.New(slogkit.NewGoKitHandler(out, least))
}

func (o *options) execute(ctx context.Context, chosen string, stdout, stderr io.Writer) error {
	if err := o.check(); err != nil {
		return usageError{err}
	}
	log := newLogger(stderr, o.logLevel, o.logFormat)
	switch chosen {
	case "serve":
		return o.serve(ctx, log)
	case "demo":
		return o.demo(ctx, stdout, log)
	case "simulate":
		return o.simulate(ctx, stdout, log)
	case "healthcheck":
		return healthcheck(ctx, cmp.Or(o.healthURL, "http://"+reachable(o.listen[0], "127.0.0.1")+"/-/healthy"))
	}
	return o.command(ctx, chosen, stdout, stderr, log)
}

// command carries out what a person has asked for.
func (o *options) command(ctx context.Context, chosen string, stdout, stderr io.Writer, log *slog.Logger) (err error) {
	key, err := o.key(log)
	if err != nil {
		return usageError{err}
	}
	// What an exporter has used of its budget is its own: its file can only be
	// open once.
	budget, err := edges.NewBudget(o.perMinute, "")
	if err != nil {
		return usageError{fmt.Errorf("--edges.max-requests-per-minute: %w", err)}
	}
	defer func() { err = errors.Join(err, budget.Close()) }()
	config := edges.Config{
		URL: o.url, Key: key, Timeout: time.Duration(o.timeout), Budget: budget,
		UserAgent: name + "/" + version.Version, Logger: log,
	}
	client, err := edges.NewClient(config)
	if err != nil {
		return usageError{fmt.Errorf("--edges.url: %w", err)}
	}
	defer client.Close()

	in := command.Terminal{
		In: os.Stdin, Out: stdout, Err: stderr,
		Person: term.IsTerminal(int(os.Stdin.Fd())), Screen: isScreen(stderr),
	}
	c := &o.commands
	switch chosen {
	case "runs list":
		c.runs.Format, c.runs.Budget = c.format, budget
		c.runs.Query.Status, c.runs.Query.ExecutionMode = upper[edges.Status](c.statuses), upper[string](c.modes)
		return command.ListRuns(ctx, client, c.runs, in)
	case "runs get":
		c.get.Format, c.get.Budget = c.format, budget
		return command.GetRuns(ctx, client, c.get, in)
	case "schedules list":
		c.schedules.Format, c.schedules.Budget = c.format, budget
		c.schedules.Query.Status = upper[edges.ScheduleStatus](c.statuses)
		return command.ListSchedules(ctx, client, c.schedules, in)
	case "check":
		return command.Check(ctx, client, o.checkOptions(budget), in)
	}

	if !*o.given["edges.timeout"] {
		config.Timeout = 0 // the writer's own: a live launch takes its time
	}
	writer, err := edges.NewWriter(config)
	if err != nil {
		return usageError{fmt.Errorf("--edges.url: %w", err)}
	}
	defer writer.Close()
	c.change.Budget = budget
	switch chosen {
	case "runs resume":
		return command.ChangeRuns(ctx, writer, client, command.Resume, c.change, in)
	case "runs cancel":
		return command.ChangeRuns(ctx, writer, client, command.Cancel, c.change, in)
	}
	c.launch.Output, c.launch.Format, c.launch.Budget = c.format.Output, c.format, budget
	return command.Launch(ctx, writer, client, c.launch, in)
}

// isScreen reports whether a line that is written there can be written over.
func isScreen(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// upper writes words as the API does.
func upper[T ~string](words []string) []T {
	var all []T
	for _, word := range words {
		all = append(all, T(strings.ToUpper(word)))
	}
	return all
}

// checkOptions is the configuration, as the check command looks at it.
func (o *options) checkOptions(budget *edges.Budget) command.CheckOptions {
	source := "the key in EDGES_API_KEY"
	if o.keyFile != "" {
		source = "the key in " + o.keyFile
	}
	var uses []command.Use
	for _, need := range collector.Needs(collector.Config{
		PollInterval: time.Duration(o.interval), Schedules: o.schedules, Callbacks: o.callbacks, Credits: o.credits,
	}) {
		uses = append(uses, command.Use(need))
	}
	return command.CheckOptions{
		URL: withoutUser(o.url), KeySource: source, Storage: o.storage,
		PerMinute: o.perMinute, Budget: budget, Uses: uses,
		Store: func(ctx context.Context) command.StoreReport {
			found, err := collector.Inspect(ctx, filepath.Join(o.storage, "edges.db"), o.workspace)
			return command.StoreReport{Absent: found.Absent, InUse: found.InUse, Runs: found.Runs, Bytes: found.Bytes, Err: err}
		},
	}
}

// check refuses values that make no sense.
func (o *options) check() error {
	metricsPath := regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$`)
	for flag, d := range map[string]model.Duration{
		"edges.timeout": o.timeout, "edges.retention": o.retention,
		"poll.interval": o.interval, "poll.audit-interval": o.auditInterval,
	} {
		if d <= 0 {
			return fmt.Errorf("--%s must be more than 0", flag)
		}
	}
	for flag, n := range map[string]int{
		"edges.max-requests-per-minute": o.perMinute, "metrics.max-actions": o.maxActions,
	} {
		if n < 1 {
			return fmt.Errorf("--%s must be at least 1, not %d", flag, n)
		}
	}
	switch {
	case o.maxActions > 50_000:
		return fmt.Errorf("--metrics.max-actions must be at most 50000, not %d", o.maxActions)
	case o.problemRuns < 0 || o.problemRuns > 1000:
		return fmt.Errorf("--metrics.problem-runs must be from 0 to 1000, not %d", o.problemRuns)
	case o.workspace == "" || len(o.workspace) > 128 || !utf8.ValidString(o.workspace):
		return errors.New("--edges.workspace must have 1 to 128 bytes of UTF-8")
	case !metricsPath.MatchString(o.metricsPath) || strings.HasPrefix(o.metricsPath, "/-/") || strings.HasPrefix(o.metricsPath, "/debug/"):
		return fmt.Errorf("--web.telemetry-path must be a path such as /metrics, not below /-/ or /debug/, not %q", o.metricsPath)
	}
	if err := web.Validate(o.webConfig); err != nil {
		return fmt.Errorf("--web.config.file: %w", err)
	}
	return nil
}

// serve runs the exporter for a real workspace.
func (o *options) serve(ctx context.Context, log *slog.Logger) error {
	key, err := o.key(log)
	if err != nil {
		return usageError{err}
	}
	return o.export(ctx, key, log, nil)
}

// key finds where the API key comes from.
func (o *options) key(log *slog.Logger) (func() (string, error), error) {
	if o.keyFile != "" {
		return edges.KeyFile(o.keyFile, log)
	}
	if key := strings.TrimSpace(os.Getenv("EDGES_API_KEY")); key != "" {
		return edges.FixedKey(key), nil
	}
	return nil, errors.New("no API key: set EDGES_API_KEY or --edges.api-key-file, or try the demo command, which needs none")
}

// export runs an exporter until ctx ends. begin, if given, is called with the
// collector before the first regular poll.
func (o *options) export(ctx context.Context, key func() (string, error), log *slog.Logger, begin func(context.Context, *collector.Collector) error) (err error) {
	listeners, err := listen(ctx, o.listen)
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	folder, cleanup, err := o.folder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanup()) }()
	budget, err := edges.NewBudget(o.perMinute, filepath.Join(folder, "budget"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, budget.Close()) }()
	client, err := edges.NewClient(edges.Config{
		URL: o.url, Key: key, Timeout: time.Duration(o.timeout), Budget: budget,
		UserAgent: name + "/" + version.Version, Logger: log,
	})
	if err != nil {
		return usageError{fmt.Errorf("--edges.url: %w", err)}
	}
	defer client.Close()
	c, err := collector.New(collector.Config{
		Client: client, Budget: budget, Workspace: o.workspace, StorePath: filepath.Join(folder, "edges.db"),
		PollInterval: time.Duration(o.interval), PollOverlap: time.Duration(o.overlap),
		AuditInterval: time.Duration(o.auditInterval), Retention: time.Duration(o.retention),
		ZeroHold: time.Duration(o.zeroHold), MaxActions: o.maxActions, ProblemRuns: o.problemRuns,
		NativeHistograms: o.native, Schedules: o.schedules, Callbacks: o.callbacks, Credits: o.credits, Logger: log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()

	log.Info("starting", "version", version.Info(), "workspace", o.workspace, "url", withoutUser(o.url), "storage", folder)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return o.listenAndServe(ctx, listeners, o.handler(c), log) })
	group.Go(func() error {
		if begin != nil {
			if err := begin(ctx, c); err != nil {
				return err
			}
		}
		return c.Run(ctx)
	})
	err = group.Wait()
	log.Info("stopped")
	return err
}

// withoutUser is a URL without the credentials that it may hold.
func withoutUser(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.User = nil
	return u.String()
}

// folder is where the store lies; without a --storage.path it is a new one
// that cleanup removes.
func (o *options) folder() (path string, cleanup func() error, err error) {
	if o.storage != "" {
		return o.storage, func() error { return nil }, os.MkdirAll(o.storage, 0o700)
	}
	path, err = os.MkdirTemp("", name+"-")
	return path, func() error { return os.RemoveAll(path) }, err
}

// handler routes the exporter's pages.
func (o *options) handler(c *collector.Collector) http.Handler {
	own := prometheus.NewRegistry()
	own.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		versioncollector.NewCollector(name),
	)
	mux := http.NewServeMux()
	mux.Handle(o.metricsPath, c.Handler(own))
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "healthy")
	})
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, _ *http.Request) {
		if !c.Ready() {
			http.Error(w, "not ready: no poll has succeeded yet", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.HandleFunc("GET /{$}", o.landing(c))
	if o.pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// landing is the page at /: links, and how the workspace is doing.
func (o *options) landing(c *collector.Collector) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		page, err := web.NewLandingPage(web.LandingConfig{
			Name: "Edges exporter", Description: "Exact metrics of the runs of an Edges workspace.",
			Version: html.EscapeString(version.Info()), ExtraHTML: describe(c.State()), Profiling: fmt.Sprint(o.pprof),
			Links: []web.LandingLinks{
				{Address: o.metricsPath, Text: "Metrics"},
				{Address: "/-/healthy", Text: "Health", Description: "the process lives"},
				{Address: "/-/ready", Text: "Readiness", Description: "a poll has succeeded"},
			},
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		page.ServeHTTP(w, r)
	}
}

// describe says in a few lines of HTML how a workspace is doing.
func describe(s collector.State) string {
	at := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return t.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	rows := [][2]string{{"Last successful poll", at(s.LastSuccess)}, {"In the numbers up to", at(s.Watermark)}}
	if s.LastError != "" {
		rows = append(rows, [2]string{"Last poll failed", s.LastError})
	}
	backfill := "still being read"
	if s.BackfillComplete {
		backfill = "all read"
	}
	rows = append(rows, [2]string{"Old runs", backfill}, [2]string{"Runs in the ledger", fmt.Sprint(s.Runs)})
	for _, status := range slices.Sorted(maps.Keys(s.ByStatus)) {
		rows = append(rows, [2]string{"of these " + status, fmt.Sprint(s.ByStatus[status])})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<h2>Workspace %s</h2><table>", html.EscapeString(s.Workspace))
	for _, row := range rows {
		fmt.Fprintf(&b, "<tr><td>%s</td><td>%s</td></tr>", html.EscapeString(row[0]), html.EscapeString(row[1]))
	}
	b.WriteString("</table>")
	return b.String()
}

// listen opens the listeners first, so that an address in use is said before
// anything else happens.
func listen(ctx context.Context, addresses []string) ([]net.Listener, error) {
	var out []net.Listener
	for _, address := range addresses {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("--web.listen-address: %w", err)
		}
		out = append(out, l)
	}
	return out, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close() // closed by the server already, in the good case
	}
}

// shutdownTime is how long requests may go on after a signal.
const shutdownTime = 3 * time.Second

// listenAndServe serves until ctx ends.
func (o *options) listenAndServe(ctx context.Context, listeners []net.Listener, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		err := server.Shutdown(end)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
		stopped <- err
	})
	err := web.ServeMultiple(listeners, server, &web.FlagConfig{
		WebListenAddresses: &o.listen, WebSystemdSocket: new(bool), WebConfigFile: &o.webConfig,
	}, log)
	if stop() {
		return fmt.Errorf("serve: %w", err)
	}
	return <-stopped
}

// healthcheck asks an exporter whether it is healthy.
func healthcheck(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return usageError{err}
	}
	// The exporter's certificate is seldom made out to localhost. Nothing
	// secret is sent, and nothing but the status believed.
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as said above
	}}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	// An exporter that asks for a password lives too.
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("%s answers %s", address, answer.Status)
	}
	return nil
}

// workspace makes the simulated workspace.
func (o *options) simulated(clock simulator.Clock, log *slog.Logger) (*simulator.Workspace, error) {
	s := &o.simulator
	config := simulator.Config{
		Seed: s.seed, APIKey: s.key, Plan: s.plan, RateLimitHints: s.hints, Clock: clock,
		History: orNone(float64(s.history), time.Duration(s.history)), RunsPerDay: orNone(s.runsPerDay, s.runsPerDay),
		HistoryRunsPerDay: orNone(s.historyPerDay, s.historyPerDay), WarmUp: simulator.DefaultWarmUp,
		LateCommitMax: time.Duration(s.late), Logger: log,
	}
	if s.late > 0 {
		config.LateCommitShare = 0.1
	}
	for _, text := range s.troubles {
		trouble, err := simulator.ParseTrouble(text)
		if err != nil {
			return nil, fmt.Errorf("--simulator.trouble: %w", err)
		}
		config.Troubles = append(config.Troubles, trouble)
	}
	w, err := simulator.New(config)
	if err != nil {
		return nil, fmt.Errorf("simulated workspace: %w", err)
	}
	return w, nil
}

// orNone is v, or the simulator's word for nothing where the flag is 0.
func orNone[T time.Duration | float64](flag float64, v T) T {
	if flag == 0 {
		return simulator.None
	}
	return v
}

// simulate serves a simulated workspace by itself.
func (o *options) simulate(ctx context.Context, stdout io.Writer, log *slog.Logger) error {
	w, err := o.simulated(nil, log)
	if err != nil {
		return usageError{err}
	}
	listeners, err := listen(ctx, []string{o.simulator.listen})
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	base := "http://" + listeners[0].Addr().String()
	fmt.Fprintf(stdout, `An Edges workspace is simulated at %[1]s
  its runs:   curl -H 'X-API-Key: %[2]s' '%[1]s/v1/runs?sort=-updated_at'
  exporter:   EDGES_API_KEY=%[2]s %[3]s --edges.url=%[1]s/v1
  trouble:    %[1]s/simulator/ says what can go wrong, and how
`, base, o.simulator.key, name)
	return o.listenAndServe(ctx, listeners, w, log)
}

// demoPast is how much of the simulated workspace's life the demo lives through
// before it shows itself, so that the counters have something to show.
const demoPast = 15 * time.Minute

// demo serves the metrics of a simulated workspace.
func (o *options) demo(ctx context.Context, stdout io.Writer, log *slog.Logger) error {
	clock := simulator.NewRealClock(-demoPast)
	w, err := o.simulated(clock, log)
	if err != nil {
		return usageError{err}
	}
	listeners, err := listen(ctx, []string{o.simulator.listen})
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	base := "http://" + listeners[0].Addr().String()
	o.url = base + "/v1"
	begin := func(ctx context.Context, c *collector.Collector) error {
		if err := settle(ctx, c); err != nil {
			return err
		}
		clock.Advance(demoPast)
		if err := settle(ctx, c); err != nil || ctx.Err() != nil {
			return err
		}
		o.greet(stdout, base)
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		quiet := *o
		quiet.webConfig = "" // it is the exporter's
		return quiet.listenAndServe(ctx, listeners, w, log)
	})
	group.Go(func() error { return o.export(ctx, edges.FixedKey(o.simulator.key), log, begin) })
	return group.Wait()
}

// demoDefaults sets what a demo has otherwise than an exporter, unless told.
func (o *options) demoDefaults() {
	set := func(flag string, to *model.Duration, d time.Duration) {
		if !*o.given[flag] {
			*to = model.Duration(d)
		}
	}
	set("poll.interval", &o.interval, 2*time.Second)
	set("poll.overlap", &o.overlap, 5*time.Second)
	set("metrics.zero-hold", &o.zeroHold, time.Second)
	if !*o.given["storage.path"] {
		o.storage = ""
	}
	if !*o.given["log.level"] {
		// The past that the demo begins with has a hundred failed runs, with a
		// line each: nobody would find the greeting between them.
		o.logLevel = "error"
	}
	o.perMinute = max(o.perMinute, 6000)
	if o.simulator.plan != "unlimited" {
		o.perMinute = 15
	}
}

// settle polls until everything there is has been read.
func settle(ctx context.Context, c *collector.Collector) error {
	for ctx.Err() == nil {
		err := c.Poll(ctx)
		switch s := c.State(); {
		case errors.Is(err, collector.ErrStore):
			return err
		case err == nil && s.BackfillComplete:
			return nil
		case err == nil:
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

func (o *options) greet(stdout io.Writer, workspace string) {
	fmt.Fprintf(stdout, `
The demo is running: a simulated Edges workspace, and an exporter that follows it.
  metrics     http://%[1]s%[2]s
  overview    http://%[1]s/
  workspace   %[3]s/simulator/

Try:
  curl -s http://%[1]s%[2]s | grep '^edges_runs{'
  curl -d 'failed:linkedin-extract-people:share=0.9:for=5m:error=LIMIT_REACHED' %[3]s/simulator/trouble

Stop it with Ctrl-C; nothing of it stays.
`, reachable(o.listen[0], "localhost"), o.metricsPath, workspace)
}

// reachable is an address under which a listener on this machine answers, which
// goes by the given name. A minimal container may not know localhost.
func reachable(listen, here string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = here
	}
	return net.JoinHostPort(host, port)
}
