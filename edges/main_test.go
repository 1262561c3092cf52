package edges

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(spenderURL) != "" {
		os.Exit(spend())
	}
	goleak.VerifyTestMain(m)
}
