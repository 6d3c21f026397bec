-- Streams as lines: the transcoder calls them application/json, which a list of documents is not.
function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get("content-type") == "application/json" and headers:get(":status") == "200" then
    headers:replace("content-type", "application/x-ndjson")
  end
end
