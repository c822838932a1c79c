// A development server made of HashiCorp Vault's own core: KV v2, AppRole and the file audit
// device, nothing else, everything in memory, on loopback. The demo and the tests use it where
// neither `bao` nor `vault` is installed; it is built from the Go module proxy, without the dozens
// of cloud back ends of the full program. It is a test tool and no part of what Toolgate ships:
// Vault's modules are under the Business Source License and stay where Go keeps them.
//
// Environment: VAULT_DEV_ROOT_TOKEN_ID, the root token to accept.
// Arguments:   the address to listen on, for example 127.0.0.1:8200.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

func main() {
	token := os.Getenv("VAULT_DEV_ROOT_TOKEN_ID")
	if len(os.Args) != 2 || token == "" {
		fmt.Fprintln(os.Stderr, "usage: VAULT_DEV_ROOT_TOKEN_ID=<token> vault-server ADDRESS")
		os.Exit(2)
	}
	if err := serve(os.Args[1], token); err != nil {
		fmt.Fprintln(os.Stderr, "vault-server:", err)
		os.Exit(1)
	}
}

func serve(address, token string) error {
	core, err := openCore(token)
	if err != nil {
		return err
	}
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{Address: address},
	})
	server := &http.Server{Addr: address, Handler: handler}

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	go func() {
		<-stop.Done()
		_ = server.Close()
	}()
	fmt.Fprintln(os.Stderr, "vault-server: listening on", address)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// openCore returns an initialised, unsealed core that accepts `token` as root and has KV v2 at secret/.
func openCore(token string) (*vault.Core, error) {
	logger := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: hclog.Warn, Output: os.Stderr})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return nil, err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:        storage,
		Logger:          logger,
		DisableMlock:    true,
		AuditBackends:   map[string]audit.Factory{"file": audit.NewFileBackend},
		LogicalBackends: map[string]logical.Factory{"kv": kv.Factory},
		CredentialBackends: map[string]logical.Factory{
			"approle": approle.Factory,
		},
		BuiltinRegistry: registry{},
	})
	if err != nil {
		return nil, err
	}

	seal := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	ctx := context.Background()
	opened, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: seal})
	if err != nil {
		return nil, err
	}
	if _, err := core.Unseal(opened.SecretShares[0]); err != nil {
		return nil, err
	}
	requests := []*logical.Request{
		{Path: "auth/token/create", Data: map[string]any{
			"id": token, "policies": []string{"root"}, "no_parent": true, "no_default_policy": true,
		}},
		{Path: "sys/mounts/secret", Data: map[string]any{
			"type": "kv", "options": map[string]string{"version": "2"},
		}},
		{Path: "auth/token/revoke-self"},
	}
	for _, request := range requests {
		request.Operation = logical.UpdateOperation
		request.ClientToken = opened.RootToken
		response, err := core.HandleRequest(namespace.RootContext(ctx), request)
		if err == nil {
			err = response.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", request.Path, err)
		}
	}
	return core, nil
}

// registry names the two plugins that are compiled in.
type registry struct{}

func (registry) Keys(kind consts.PluginType) []string {
	switch kind {
	case consts.PluginTypeCredential:
		return []string{"approle"}
	case consts.PluginTypeSecrets:
		return []string{"kv"}
	default:
		return nil
	}
}

func (r registry) Contains(name string, kind consts.PluginType) bool {
	return slices.Contains(r.Keys(kind), name)
}

func (r registry) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factories := map[string]logical.Factory{"approle": approle.Factory, "kv": kv.Factory}
	if !r.Contains(name, kind) {
		return nil, false
	}
	return func() (any, error) { return factories[name], nil }, true
}

func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, kind)
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
