package main

import (
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type compose struct {
	Services map[string]struct {
		Image   string   `yaml:"image"`
		Build   string   `yaml:"build"`
		Command []string `yaml:"command"`
		Volumes []string `yaml:"volumes"`
		Ports   []string `yaml:"ports"`
	} `yaml:"services"`
}

func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
}

// inside gives the file of the repository that a container has at a path.
func (c compose) inside(t *testing.T, service, file string) string {
	t.Helper()
	for _, v := range c.Services[service].Volumes {
		parts := strings.Split(v, ":")
		if file == parts[1] || strings.HasPrefix(file, parts[1]+"/") {
			return filepath.Join("..", parts[0], strings.TrimPrefix(file, parts[1]))
		}
	}
	t.Fatalf("%s has no file %s", service, file)
	return ""
}

// What the services of compose.yaml name of one another and of the repository
// is there.
func TestComposeFitsTogether(t *testing.T) {
	var c compose
	readYAML(t, "../compose.yaml", &c)
	for name, s := range c.Services {
		if _, tag, _ := strings.Cut(s.Image, ":"); s.Build == "" && (tag == "" || !strings.ContainsAny(tag, "0123456789") || strings.Count(tag, ".") != 2) {
			t.Errorf("%s: the image %q is not pinned", name, s.Image)
		}
		for _, v := range s.Volumes {
			parts := strings.Split(v, ":")
			if len(parts) != 3 || parts[2] != "ro" {
				t.Errorf("%s: volume %q can be written to", name, v)
			}
			if _, err := os.Stat(filepath.Join("..", parts[0])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s is open to the network", name, p)
			}
		}
	}
	flag := func(service, name string) string {
		for _, a := range c.Services[service].Command {
			if v, ok := strings.CutPrefix(a, name+"="); ok {
				return v
			}
		}
		t.Fatalf("%s has no flag %s", service, name)
		return ""
	}

	// Prometheus' files, read where they stand in the repository, as in the container.
	configured := flag("prometheus", "--config.file")
	var config struct {
		RuleFiles []string `yaml:"rule_files"`
		Alerting  struct {
			Alertmanagers []struct {
				Static []struct{ Targets []string } `yaml:"static_configs"`
			}
		}
		Scrape []struct {
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, c.inside(t, "prometheus", configured), &config)
	for _, rules := range config.RuleFiles {
		c.inside(t, "prometheus", path.Join(path.Dir(configured), rules))
	}
	hosts := append(config.Scrape[0].Static[0].Targets, config.Alerting.Alertmanagers[0].Static[0].Targets...)
	c.inside(t, "alertmanager", flag("alertmanager", "--config.file"))

	// Grafana's data source and folder.
	var sources struct {
		Datasources []struct{ URL string }
	}
	readYAML(t, c.inside(t, "grafana", "/etc/grafana/provisioning/datasources/prometheus.yml"), &sources)
	source, err := url.Parse(sources.Datasources[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	hosts = append(hosts, source.Host)
	for _, host := range hosts {
		service, port, _ := strings.Cut(host, ":")
		if !slices.ContainsFunc(c.Services[service].Ports, func(p string) bool { return strings.HasSuffix(p, ":"+port) }) {
			t.Errorf("no service answers at %s", host)
		}
	}
	var providers struct {
		Providers []struct{ Options struct{ Path string } }
	}
	readYAML(t, c.inside(t, "grafana", "/etc/grafana/provisioning/dashboards/edges.yml"), &providers)
	for _, uid := range uids() {
		c.inside(t, "grafana", path.Join(providers.Providers[0].Options.Path, uid+".json"))
	}
}

func TestPrometheusTakesItsConfiguration(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), filepath.Join(tools(t), "promtool"), "check", "config", "prometheus.yml")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
