// Starts Swagger UI on our own document; validatorUrl null, because the default asks a public service.
SwaggerUIBundle({ url: "/docs/openapi.json", dom_id: "#api", validatorUrl: null, deepLinking: true });
