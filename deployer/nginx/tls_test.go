package nginx

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"scotch/deployer"
)

// An administrator's own server with a certificate, as the README has it, and the
// lines that send clients of the other one there.
func TestHTTPSOfAnAdministrator(t *testing.T) {
	w := newSystemWorld(t, "", "acme_path = DIR/acme")
	made := httptest.NewTLSServer(nil) // for its certificate
	made.Close()
	key, err := x509.MarshalPKCS8PrivateKey(made.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, text string) deployer.File {
		return deployer.File{Path: filepath.Join(w.dir, name), Data: []byte(text), Mode: 0o600}
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	w.write([]deployer.File{
		file("cert.pem", block("CERTIFICATE", made.TLS.Certificates[0].Certificate[0])),
		file("key.pem", block("PRIVATE KEY", key)),
		file("https.conf", "if ($scheme = http) {\n\treturn 301 https://$host$request_uri;\n}\n"),
		file("sites-enabled/https", `server {
	listen unix:`+w.dir+`/https.sock ssl;
	server_name shop.example.org;
	ssl_certificate `+w.dir+`/cert.pem;
	ssl_certificate_key `+w.dir+`/key.pem;
	include `+w.dir+`/scotch-server.conf;
	include `+w.dir+`/scotch-apps/shop.example.org/*.conf;
}
`)})
	if err := os.MkdirAll(w.dir+"/acme"+acmePath, 0o755); err != nil {
		t.Fatal(err)
	}
	w.write([]deployer.File{file("acme"+acmePath+"token", "token.thumbprint")})
	w.start("one", "000001")
	w.current("one", "000001")
	r := w.route("one", "/", "shop.example.org")
	r.App.Values = open(t, "[nginx]\ninclude = "+w.dir+"/https.conf\n").Values
	w.publish(r)

	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", w.dir+"/https.sock")
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://shop.example.org/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%v\n%s", err, w.log())
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("by https: %s", resp.Status)
	}
	if a := w.get("shop.example.org", "/x?y=1"); a.status != 301 || a.header.Get("Location") != "https://shop.example.org/x?y=1" {
		t.Errorf("by http: %d to %q", a.status, a.header.Get("Location"))
	}
	if a := w.get("shop.example.org", acmePath+"token"); a.status != 200 {
		t.Errorf("a challenge by http: %d", a.status)
	}
}
