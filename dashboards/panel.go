package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/heatmap"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/statushistory"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// Texts for panels that rightly have nothing to show.
const (
	noRuns   = "no runs in this range"
	noneNow  = "none now"
	noneSeen = "none in this range"
	notYet   = "no data from the exporter"
)

// Steps below which a graph is not drawn finer. With the usual scrape interval
// they make $__rate_interval 4, 8 and 20 minutes: few runs a minute make shares and
// quantiles of shorter stretches jump about, and schedules run seldom.
const (
	fine   = "1m"
	coarse = "2m"
	rare   = "5m"
)

// panel is what every panel has, whatever it draws.
type panel struct {
	title string
	// about says what the panel shows and what good looks like.
	about   string
	unit    string
	empty   string
	queries []query

	decimals   *float64
	min, max   *float64
	steps      *dashboard.ThresholdsConfig
	overrides  []override
	transforms []dashboard.DataTransformerConfig
	links      []dashboard.DashboardLink
}

// query is one expression of a panel. Without a step of its own it is asked
// for once, at the end of the range.
type query struct {
	expr   string
	legend string
	step   string
	// exemplars asks for the runs behind the numbers; for counters and
	// histograms that carry them.
	exemplars bool
	format    prometheus.PromQueryFormat
}

// placed is a finished panel and its size on the grid of 24 columns.
type placed struct {
	wide, high uint32
	panel      dashboard.Panel
}

func number(v float64) *float64 { return &v }

// timeseries draws lines over time.
func (p panel) timeseries(wide, high uint32, style func(*timeseries.PanelBuilder)) (placed, error) {
	b := timeseries.NewPanelBuilder().
		LineWidth(1.5).FillOpacity(8).ShowPoints(common.VisibilityModeNever).
		LineInterpolation(common.LineInterpolationLinear).
		// A line goes on over one missing sample or two, not over a silence.
		SpanNulls(common.BoolOrFloat64{Bool: cog.ToPtr(false)}).
		AxisBorderShow(false).AxisSoftMin(0).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending)).
		Legend(legend())
	if style != nil {
		style(b)
	}
	return p.finish(b, wide, high)
}

// stacked fills the areas one on top of the other.
func stacked(b *timeseries.PanelBuilder) {
	b.Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A")).
		FillOpacity(55).LineWidth(0.5)
}

// logarithmic shows seconds and hours in one graph.
func logarithmic(b *timeseries.PanelBuilder) {
	b.FillOpacity(0).ScaleDistribution(common.NewScaleDistributionConfigBuilder().Type(common.ScaleDistributionLog).Log(10))
}

// calm keeps a graph of nothing but zeros from being scaled to a hundred.
func calm(b *timeseries.PanelBuilder) { b.AxisSoftMax(1) }

// high begins the axis of a share where shares usually are.
func high(b *timeseries.PanelBuilder) { b.AxisSoftMin(0.7).FillOpacity(0) }

// low ends the axis of a share where shares usually are that should be 0.
func low(b *timeseries.PanelBuilder) { b.AxisSoftMax(0.1) }

// each gives every series a colour of its own, for as many as have no meaning to
// share. The colours are those of the reader's theme, of which Grafana has some
// for colour-blind readers.
func each(b *timeseries.PanelBuilder) {
	b.FillOpacity(0).Legend(legend().Calcs(nil)).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdPaletteClassic))
}

// namesOnly leaves the numbers out of the legend.
func namesOnly(b *timeseries.PanelBuilder) { b.Legend(legend().Calcs(nil)) }

// flat leaves out the area under the lines.
func flat(b *timeseries.PanelBuilder) { b.FillOpacity(0) }

// shaded draws the series of a panel in shades of one colour.
func shaded(b *timeseries.PanelBuilder) {
	b.FillOpacity(0).ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdShades).FixedColor(neutral))
}

// line draws the thresholds into the graph.
func line(b *timeseries.PanelBuilder) {
	b.ThresholdsStyle(common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeDashed))
}

// in colours every series of a panel alike.
func in(color string) func(*timeseries.PanelBuilder) {
	return func(b *timeseries.PanelBuilder) {
		b.ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdFixed).FixedColor(color))
	}
}

func all(styles ...func(*timeseries.PanelBuilder)) func(*timeseries.PanelBuilder) {
	return func(b *timeseries.PanelBuilder) {
		for _, s := range styles {
			s(b)
		}
	}
}

// stat shows one number, coloured by the panel's thresholds, or one tile for
// each series.
func (p panel) stat(wide, high uint32, style func(*stat.PanelBuilder)) (placed, error) {
	b := stat.NewPanelBuilder().
		GraphMode(common.BigValueGraphModeNone).ColorMode(common.BigValueColorModeValue).
		JustifyMode(common.BigValueJustifyModeAuto).TextMode(common.BigValueTextModeAuto).
		WideLayout(false).Orientation(common.VizOrientationAuto).
		ReduceOptions(lastValue())
	if style != nil {
		style(b)
	}
	return p.finish(b, wide, high)
}

// single gives a lone number the size that it has in the tiles beside it.
func single(b *stat.PanelBuilder) {
	b.Text(common.NewVizTextDisplayOptionsBuilder().ValueSize(32))
}

// couple gives two numbers the size that a lone one has.
func couple(b *stat.PanelBuilder) {
	b.Text(common.NewVizTextDisplayOptionsBuilder().TitleSize(12).ValueSize(30))
}

// text shows the series' name in place of its value.
func text(b *stat.PanelBuilder) { b.TextMode(common.BigValueTextModeName) }

// tiles shows name and number of each series, on the series' colour.
func tiles(b *stat.PanelBuilder) {
	b.ColorMode(common.BigValueColorModeBackgroundSolid).
		TextMode(common.BigValueTextModeValueAndName).
		JustifyMode(common.BigValueJustifyModeCenter).
		Orientation(common.VizOrientationVertical).
		Text(common.NewVizTextDisplayOptionsBuilder().TitleSize(12).ValueSize(22))
}

func lastValue() *common.ReduceDataOptionsBuilder {
	return common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})
}

// table shows one row for each series of the last moment, those with the most
// or the least in a column first.
func (p panel) table(wide, high uint32, sortBy string, most bool) (placed, error) {
	// The text for no data is for a table without rows, not for every cell.
	p.overrides = append([]override{byRegexp(".*", property("noValue", "–"))}, p.overrides...)
	b := table.NewPanelBuilder().
		ShowHeader(true).CellHeight(common.TableCellHeightSm).
		SortBy([]cog.Builder[common.TableSortByFieldState]{
			common.NewTableSortByFieldStateBuilder().DisplayName(sortBy).Desc(most),
		})
	return p.finish(b, wide, high)
}

// bars compares series by one number each. The names stand above the bars, so
// that long ones are whole on a narrow page too.
func (p panel) bars(wide, high uint32, color string) (placed, error) {
	b := bargauge.NewPanelBuilder().
		DisplayMode(common.BarGaugeDisplayModeBasic).ValueMode(common.BarGaugeValueModeText).
		Orientation(common.VizOrientationHorizontal).
		NamePlacement(common.BarGaugeNamePlacementTop).ShowUnfilled(false).
		Sizing(common.BarGaugeSizingManual).MinVizHeight(30).MaxVizHeight(36).
		Text(common.NewVizTextDisplayOptionsBuilder().TitleSize(12).ValueSize(13)).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdFixed).FixedColor(color)).
		ReduceOptions(lastValue())
	return p.finish(b, wide, high)
}

// strips shows one row for each series, the darker or brighter the more: what
// stands out is seen at once, also among many and without telling hues apart.
func (p panel) strips(wide, high uint32, scheme dashboard.FieldColorModeId) (placed, error) {
	b := statushistory.NewPanelBuilder().
		ShowValue(common.VisibilityModeNever).RowHeight(0.86).ColWidth(1).
		LineWidth(0).FillOpacity(100).
		// More columns than this are too narrow to be drawn.
		MaxDataPoints(90).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(scheme)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeSingle)).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(false).DisplayMode(common.LegendDisplayModeHidden).
			Placement(common.LegendPlacementBottom))
	return p.finish(b, wide, high)
}

// states shows what each series was, and from when to when.
func (p panel) states(wide, high uint32) (placed, error) {
	b := statetimeline.NewPanelBuilder().
		ShowValue(common.VisibilityModeAuto).MergeValues(true).RowHeight(0.8).LineWidth(0).FillOpacity(70).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeSingle)).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(false).DisplayMode(common.LegendDisplayModeHidden).
			Placement(common.LegendPlacementBottom))
	return p.finish(b, wide, high)
}

// heatmap draws a histogram's buckets over time. The lightness of cividis goes
// one way, so it needs no telling apart of hues.
func (p panel) heatmap(wide, high uint32) (placed, error) {
	b := heatmap.NewPanelBuilder().
		Calculate(false).CellGap(1).ShowLegend().
		Color(heatmap.NewHeatmapColorOptionsBuilder().
			Mode(heatmap.HeatmapColorModeScheme).Scheme("Cividis").Steps(64).Exponent(0.5).
			Scale(heatmap.HeatmapColorScaleExponential).Fill(neutral)).
		// Empty buckets stay empty.
		FilterValues(heatmap.NewFilterValueRangeBuilder().Le(1e-9)).
		YAxis(heatmap.NewYAxisConfigBuilder().AxisPlacement(common.AxisPlacementLeft).Unit(unitSeconds)).
		RowsFrame(heatmap.NewRowsHeatmapOptionsBuilder().Layout(common.HeatmapCellLayoutAuto)).
		CellValues(heatmap.NewCellValuesBuilder().Unit(unitCount)).
		Tooltip(heatmap.NewHeatmapTooltipBuilder().Mode(common.TooltipDisplayModeSingle).YHistogram(true).ShowColorScale(true)).
		ExemplarsColor(bad)
	return p.finish(b, wide, high)
}

// finish puts what all panels share into the built one.
func (p panel) finish(b cog.Builder[dashboard.Panel], wide, high uint32) (placed, error) {
	out, err := b.Build()
	if err != nil {
		return placed{}, fmt.Errorf("build panel %q: %w", p.title, err)
	}
	out.Title, out.Description = &p.title, &p.about
	out.Datasource = datasource()
	out.Links = p.links
	out.Transformations = p.transforms

	if out.FieldConfig == nil {
		out.FieldConfig = dashboard.NewFieldConfigSource()
	}
	f := &out.FieldConfig.Defaults
	f.Unit, f.NoValue = &p.unit, &p.empty
	f.Decimals, f.Min, f.Max = p.decimals, p.min, p.max
	f.Thresholds = p.steps
	if f.Thresholds == nil {
		f.Thresholds = thresholds(plain)
	}
	for _, o := range p.overrides {
		out.FieldConfig.Overrides = append(out.FieldConfig.Overrides, dashboard.DashboardFieldConfigSourceOverrides{
			Matcher: dashboard.MatcherConfig{Id: o.matcher, Options: o.match}, Properties: o.properties,
		})
	}

	for i, q := range p.queries {
		t := prometheus.NewDataqueryBuilder().
			RefId(string(rune('A' + i))).Expr(q.expr).LegendFormat(q.legend).
			EditorMode(prometheus.QueryEditorModeCode).Datasource(*datasource())
		if q.step == "" {
			t.Instant()
		} else {
			t.Range().Interval(q.step).Exemplar(q.exemplars)
		}
		if q.format == "" {
			q.format = prometheus.PromQueryFormatTimeSeries
		}
		target, err := t.Format(q.format).Build()
		if err != nil {
			return placed{}, fmt.Errorf("build query %q of panel %q: %w", q.expr, p.title, err)
		}
		out.Targets = append(out.Targets, target)
	}
	return placed{wide, high, out}, nil
}
