-- What nginx answers by itself: its pages, and how the ship is.

local state = ngx.shared.starphleet_state

local M = { ship = "", reached = "" } -- `reached`: how who has a key does, by ssh

local OFFLINE = "\1offline"

local function escape(text)
    return (text:gsub("[&<>\"']", function(c) return "&#" .. c:byte() .. ";" end))
end

local function page(status, title, text)
    ngx.status, ngx.ctx.ours = status, true
    ngx.header["Cache-Control"] = "no-store"
    if status > 500 then ngx.header["Retry-After"] = "1" end
    if not (ngx.var.http_accept or ""):find("text/html", 1, true) then
        ngx.header["Content-Type"] = "text/plain; charset=utf-8"
        return ngx.say(status, " ", title, "\n", text)
    end
    ngx.header["Content-Type"] = "text/html; charset=utf-8"
    ngx.say("<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        "<title>", status, " ", escape(title), "</title><style>body{font:16px/1.5 system-ui,",
        "sans-serif;max-width:36em;margin:15vh auto;padding:0 1em}</style><h1>", escape(title),
        "</h1><p>", escape(text), "</p><p><small>", status, " &middot; ", escape(M.ship),
        "</small></p>")
end

function M.nothing_here()
    page(404, "No such service", "There is no service at " .. ngx.var.host .. ngx.var.uri ..
        " on the ship " .. M.ship .. ".")
end

-- Who is not let in to the ship's own pages is told how to get there.
function M.knock()
    ngx.header["WWW-Authenticate"] = "Starphleet"
    page(401, "Who are you?", "This is for who has an admiral's key of the ship. In a terminal: " ..
        M.reached .. " open dashboard - and open the link that it prints.")
end

function M.foreign()
    page(403, "Not from there", "A page from elsewhere asked for this.")
end

function M.leave()
    ngx.header["Content-Type"] = "text/html; charset=utf-8"
    ngx.header["Cache-Control"] = "no-store"
    ngx.header["Content-Security-Policy"] = "default-src 'none'; form-action 'self'; " ..
        "frame-ancestors 'none'"
    ngx.say("<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'><title>Sign out</title>",
        "<h1>Sign out of ", escape(M.ship), "</h1><form method=post><button>Sign out</button></form>")
end

-- The pages of what nginx itself had to answer; an app's own errors never come here.
function M.failure()
    local status, service = ngx.status, ngx.var.sp_service
    if ngx.var.sp_trouble == "guard" then
        return page(503, "Cannot ask who you are", service .. " is only for some, and what knows " ..
            "them does not answer on the ship " .. M.ship .. " at the moment.")
    end
    if ngx.var.sp_trouble == "away" then
        return page(503, "The ship is away", "Its pages come back with it. What it serves goes on.")
    end
    if status == 503 then
        return page(503, service .. " is not running", "There is no container of " .. service ..
            " on the ship " .. M.ship .. " at the moment.")
    elseif status == 504 then
        return page(504, service .. " did not answer in time", "The container of " .. service ..
            " took the request and gave no answer.")
    elseif status == 502 and (ngx.var.upstream_connect_time or "-"):match("-$") then
        return page(502, service .. " is being restarted", "Nothing accepts connections in the " ..
            "container of " .. service .. " right now.")
    elseif status == 502 then
        return page(502, service .. " broke off", "The container of " .. service ..
            " took the request and closed the connection without a whole answer.")
    end
    page(status, "The proxy failed", "The ship " .. M.ship .. " could not hand on the request.")
end

-- Whether the world is to send requests here.
function M.status()
    ngx.header["Content-Type"] = "text/plain"
    ngx.header["Cache-Control"] = "no-store"
    if state:get(OFFLINE) then
        ngx.status = 404
        return ngx.say("Offline")
    end
    ngx.say("Ok")
end

function M.set_offline(offline)
    state:set(OFFLINE, offline or nil)
end

return M
