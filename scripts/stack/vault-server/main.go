// A development server made of HashiCorp Vault's own core: KV, an engine that lends what was put into
// it, AppRole, JWT and the file audit device, nothing else, everything in memory, on loopback. The demo
// and the tests use it where
// neither `bao` nor `vault` is installed; it is built from the Go module proxy, without the dozens
// of cloud back ends of the full program. It is a test tool and no part of what Toolgate ships:
// Vault's modules are under the Business Source License and stay where Go keeps them.
//
// Environment: VAULT_DEV_ROOT_TOKEN_ID, the root token to accept;
//
//	VAULT_DEV_UNSEAL_KEY_FILE, a file to write the unseal key to, for tests that seal it.
//
// Arguments: the address to listen on, for example 127.0.0.1:8200; to listen with TLS, too, another
// address, and files with a certificate and its key.
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/hashicorp/go-hclog"
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
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
	if (len(os.Args) != 2 && len(os.Args) != 5) || token == "" {
		fmt.Fprintln(os.Stderr, "usage: VAULT_DEV_ROOT_TOKEN_ID=<token> vault-server ADDRESS [TLS_ADDRESS CERTIFICATE KEY]")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2:], token); err != nil {
		fmt.Fprintln(os.Stderr, "vault-server:", err)
		os.Exit(1)
	}
}

func serve(address string, tls []string, token string) error {
	core, err := openCore(token)
	if err != nil {
		return err
	}
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{Address: address},
	})
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	ended := make(chan error, 2)
	servers := []*http.Server{{Addr: address, Handler: handler}}
	go func() { ended <- servers[0].ListenAndServe() }()
	if len(tls) == 3 {
		secured := &http.Server{Addr: tls[0], Handler: handler}
		servers = append(servers, secured)
		go func() { ended <- secured.ListenAndServeTLS(tls[1], tls[2]) }()
	}
	fmt.Fprintln(os.Stderr, "vault-server: listening on", address)
	select {
	case <-stop.Done():
	case err = <-ended:
	}
	for _, server := range servers {
		_ = server.Close()
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// openCore returns an initialised, unsealed core that accepts `token` as root and has KV v2 at secret/.
func openCore(token string) (*vault.Core, error) {
	logger := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: hclog.Warn, Output: os.Stderr})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return nil, err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		Logger:             logger,
		DisableMlock:       true,
		AuditBackends:      map[string]audit.Factory{"file": audit.NewFileBackend},
		LogicalBackends:    secretEngines,
		CredentialBackends: loginMethods,
		BuiltinRegistry:    registry{},
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
	if file := os.Getenv("VAULT_DEV_UNSEAL_KEY_FILE"); file != "" {
		key := hex.EncodeToString(opened.SecretShares[0])
		if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
			return nil, err
		}
	}
	// Unsealing wipes the key that it is given.
	if _, err := core.Unseal(slices.Clone(opened.SecretShares[0])); err != nil {
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

// lending is the engine that lends: each read is a lease, as long as the field `ttl` says.
const lending = "leased"

var (
	secretEngines = map[string]logical.Factory{
		"kv":    kv.Factory,
		lending: vault.LeasedPassthroughBackendFactory,
	}
	loginMethods = map[string]logical.Factory{
		"approle": approle.Factory,
		"jwt":     jwt.Factory,
	}
)

// registry names the plugins that are compiled in.
type registry struct{}

func factories(kind consts.PluginType) map[string]logical.Factory {
	switch kind {
	case consts.PluginTypeCredential:
		return loginMethods
	case consts.PluginTypeSecrets:
		return secretEngines
	default:
		return nil
	}
}

func (registry) Keys(kind consts.PluginType) []string {
	return slices.Sorted(maps.Keys(factories(kind)))
}

func (registry) Contains(name string, kind consts.PluginType) bool {
	_, found := factories(kind)[name]
	return found
}

func (registry) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factory, found := factories(kind)[name]
	return func() (any, error) { return factory, nil }, found
}

func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, kind)
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
